"""Twenty answers of zoo/vlm-collages, ten right and ten wrong, drawn for a page: ``python book/own_answers.py``.

It is asked as ``mmlearn chat zoo/vlm-collages --image FILE`` asks it, with SmolLM2 installed; of each kind of question
the first answers that are right are taken, and the first that are wrong. A few minutes.
"""

from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from torchvision.utils import save_image

from mmlearn.data.packaged.emoji import FLUENT
from mmlearn.data.synthetic.collage_chat import ask_each, compose, fits, kinds_for
from mmlearn.data.synthetic.collages import draw
from mmlearn.data.synthetic.cutouts import PHOTOGRAPHS
from mmlearn.training.conversation import Conversation, open_conversation
from mmlearn.visualization.answered import dialogue_board

PICTURE = Path(__file__).parent / "_static" / "own_answers.png"
KINDS = {"name": (4, PHOTOGRAPHS, 1), "colour": (2, FLUENT, 4), "where": (2, FLUENT, 4), "exist": (2, FLUENT, 4)}
SEED = 27  # of pictures that neither the training nor the lesson has


def answered(kind: str, wanted: int, styles: tuple[str, ...], most: int) -> list:
    """So many right and so many wrong answers to questions of one kind: each a picture and one turn."""
    run, found = open_conversation("zoo/vlm-collages").run, {True: [], False: []}
    with TemporaryDirectory() as folder:
        for number in count():
            (pair,) = compose(styles, 1, SEED + number, most=most)
            if kind not in kinds_for(pair[0]):
                continue
            (asked,), (image,) = ask_each([pair], kind), draw([pair], 256)
            save_image(image, Path(folder) / "picture.png")
            text = Conversation(run, Path(folder) / "picture.png").ask(asked.question).text
            right = fits(asked, text, pair[0])
            if len(found[right]) < wanted:
                found[right].append((image, [(asked.question, text, right)]))
            if min(map(len, found.values())) == wanted:
                return [*found[True], *found[False]]


if __name__ == "__main__":
    boards = [board for kind, (wanted, styles, most) in KINDS.items() for board in answered(kind, wanted, styles, most)]
    title = "Photographs of one thing, and collages of a style never seen: ten right answers and ten wrong ones"
    figure = dialogue_board(*zip(*boards), title=title, columns=5)
    figure.savefig(PICTURE, dpi=80, bbox_inches="tight")
