"""For teachers and students: cards and their check, the quiz, grading, the playground, pictures.

| room | what it does |
|---|---|
| `exercises` | says of an answer to a card of a lesson: right, or which mistake it is |
| `grading` | ``python -m classroom.grading returned``: the table of a class |
| `quiz` | ten questions over all lessons, and what speaks for and against each answer |
| `playground` | lesson 02's sliders: pads, mask, side, and what the model makes of them |
| `figures` | the lessons' pictures, each with its alt text |
| `environment` | ``python -m classroom.environment``: is this machine ready for the course? |
"""
