"""For teachers and students: exercise cards and their check, grading, the playground, the check of a machine.

| room | what it does |
|---|---|
| `exercises` | says of an answer to a card of a lesson: right, or which mistake it is |
| `grading` | ``python -m classroom.grading returned``: the table of a class |
| `playground` | lesson 02's sliders: pads, mask, side, and what the model makes of them |
| `environment` | ``python -m classroom.environment``: is this machine ready for the course? |
"""
