"""Grade a folder of returned notebooks: a table of students by exercises.

    python -m classroom.grading returned --csv grades.csv

| room | what it does |
|---|---|
| `returned` | finds the notebooks, whose each is and of which lesson, and names what else was returned |
| `process` | grades a notebook in a process of its own, with limits |
| `one` | that process: runs a notebook's cards, and tells what comes of them |
| `cells` | chooses what of a notebook is run |
| `table` | puts together the table of the class |

What a notebook has stored or prints counts for nothing. The process guards against accidents, such as a loop
without an end. It is no sandbox: strangers' notebooks belong in a container (``Dockerfile``, beside this).
"""
