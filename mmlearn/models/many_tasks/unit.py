"""UniT: an image encoder, a text encoder, and one decoder whose queries depend on the task; a head for each task.

Paper: Hu & Singh 2021, "UniT: Multimodal Multitask Learning with a Unified Transformer". Official code:
https://github.com/facebookresearch/mmf, ``projects/unit``.

Deviations: tasks are those of scenes: objects, answers, whether a text fits its image, and one task of texts alone, the
relation that is stated. The paper has seven on eight data sets. Answers are classified by a softmax, where the code has
a binary classification for each. The decoder attends to all tokens of a text; the code has only the first one for some
tasks. The backbone's last stage is not dilated, attributes of objects are not predicted, and all weights start at
random. Nothing drops out between the two layers of an MLP, nor of what a task's head reads; in the code a tenth does.
Each batch serves one task, all with equal probability. ``tiny`` is ours; ``shared`` has the paper's sizes and the heads
of these tasks. Not compared with released code: its tasks and heads are others; DETR, on which it stands, is compared.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Config, Transformer, TransformerConfig
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.models.vision.detr_blocks import BoxHead, DETRDecoder, DETREncoder
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig
from mmlearn.objectives.boxes import check_boxes
from mmlearn.objectives.classes import class_cross_entropy
from mmlearn.objectives.matching import image_text_matching
from mmlearn.objectives.set_matching import set_losses_of_blocks

TASKS = {"detection": ("image",), "vqa": ("image", "text"), "match": ("image", "text"), "relation": ("text",)}
DETR_LIKE: dict[str, Any] = dict(activation="relu", norm_first=False, dropout=0.1)
SMALL: dict[str, Any] = dict(width=64, depth=1, num_heads=4, mlp_width=128, activation="relu", norm_first=False)


@dataclass(frozen=True)
class UniTConfig(Config):
    backbone: ResNetConfig = ResNetConfig()
    image: TransformerConfig = TransformerConfig(256, 6, 8, 2048, **DETR_LIKE)
    text: BERTEncoderConfig = BERTEncoderConfig()
    decoder: TransformerConfig = TransformerConfig(768, 6, 8, 2048, **DETR_LIKE)
    image_size: int | tuple[int, int] = (800, 1333)  # pixels; others are read as well
    num_queries: int = 100  # objects that can be found, at most
    task_queries: int = 25  # of each other task, of which the first is read
    num_classes: int = 91  # of objects
    answers: int = 3129
    relations: int = 4

    PRESETS = {
        "tiny": dict(backbone=RESNETS["tiny"], image=TransformerConfig(**SMALL), image_size=64, num_queries=36)
        | dict(text=BERTEncoderConfig(**TINY_BERT | dict(depth=2)), decoder=TransformerConfig(**SMALL | dict(depth=2)))
        | dict(task_queries=4, num_classes=12, answers=41),
        "shared": dict(),
    }


class DetectionOutput(NamedTuple):
    class_logits: Float[Tensor, "b q c"]  # the last class is: no object
    boxes: Float[Tensor, "b q 4"]  # centre, width and height, as shares of the image
    aux_outputs: list[tuple[Tensor, Tensor]]  # class logits and boxes after each earlier block of the decoder


class AnswerOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]


class MatchOutput(NamedTuple):
    match_logits: Float[Tensor, "b 2"]  # 0: do not belong together, 1: do


class RelationOutput(NamedTuple):
    relation_logits: Float[Tensor, "b relations"]


class ImageTextOutput(NamedTuple):
    """Of all tasks that read an image, where there is a text too."""

    class_logits: Float[Tensor, "b q c"]
    boxes: Float[Tensor, "b q 4"]
    aux_outputs: list[tuple[Tensor, Tensor]]
    answer_logits: Float[Tensor, "b answers"]
    match_logits: Float[Tensor, "b 2"]


UniTOutput = DetectionOutput | AnswerOutput | MatchOutput | RelationOutput | ImageTextOutput


class TaskHead(nn.Sequential):
    """A layer, GELU, a norm, and a layer to the classes; it starts so small that none is preferred."""

    def __init__(self, width: int, classes: int):
        super().__init__(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, 1e-12), nn.Linear(width, classes))
        self.apply(initialise_as_bert)


class UniT(nn.Module):
    r"""The queries of a task attend to the states of both encoders, one sequence.

    .. math:: h = \mathrm{Dec}(Q_t, [W_v (x_v + \mathrm{Enc}_v(x_v; e_t));\, W_l\, \mathrm{Enc}_l(x_l; e_t)])

    Each encoder also reads an embedding of the task, :math:`e_t`, which the decoder does not see. ``mask`` is True
    where a token is real. Either modality may be missing, for tasks that do not need it. Raises ``ValueError`` for an
    unknown task, and for one whose modality is missing. Source: sections 3.1 to 3.4 and official code.
    """

    def __init__(self, config: UniTConfig):
        super().__init__()
        self.config = config
        image, text, width = config.image, config.text, config.decoder.width
        self.image_encoder = DETREncoder(image, config.backbone)
        self.image_projection, self.image_positions = (nn.Linear(image.width, width) for _ in range(2))
        self.embedding, self.text_encoder = BERTEmbedding(text), Transformer(text)
        self.text_projection, self.text_positions = (nn.Linear(text.width, width) for _ in range(2))
        for part in (self.embedding, self.text_encoder):
            part.apply(lambda module: initialise_as_bert(module, text.initial_std))
        inputs = {"image": image.width, "text": text.width}
        self.task_vectors = nn.ParameterDict(
            {
                f"{task}_{modality}": torch.randn(inputs[modality])
                for task, modalities in TASKS.items()
                for modality in modalities
            }
        )
        counts = {task: config.num_queries if task == "detection" else config.task_queries for task in TASKS}
        self.queries = nn.ParameterDict({task: torch.randn(count, width) for task, count in counts.items()})
        self.decoder = DETRDecoder(config.decoder)
        self.class_head, self.box_head = nn.Linear(width, config.num_classes + 1), BoxHead(width)
        self.answer_head = TaskHead(width, config.answers)
        self.match_head, self.relation_head = TaskHead(width, 2), TaskHead(width, config.relations)

    def read_image(self, embedded: tuple[Tensor, Tensor, Tensor], task: str) -> tuple[Tensor, Tensor, Tensor]:
        """An image, encoded for a task and projected for the decoder: its states, positions and mask."""
        x, positions, mask = embedded
        task_token = self.task_vectors[f"{task}_image"].expand(len(x), 1, -1).to(x)
        padded = F.pad(positions, (0, 0, 1, 0)), F.pad(mask, (1, 0), value=True)  # the task token has no position
        states = x + self.image_encoder(torch.cat([task_token, x], 1), *padded)[:, 1:]  # (b, p, d)
        return self.image_projection(states), self.image_positions(positions), mask

    def read_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None, task: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same for a text."""
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        task_token = self.task_vectors[f"{task}_text"].expand(len(tokens), 1, -1)
        x = torch.cat([task_token, self.embedding(tokens)], 1)  # (b, 1 + t, d)
        states = self.text_encoder(x, F.pad(mask, (1, 0), value=True))[:, 1:]
        # Repeated, not expanded: the compiled loss of a text alone has no backward pass through an expanded one.
        positions = self.text_positions(self.embedding.positions[: tokens.shape[1]]).repeat(len(tokens), 1, 1)
        return self.text_projection(states), positions, mask

    def solve(
        self,
        task: str,
        image: Float[Tensor, "b 3 height width"] | None = None,
        tokens: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        embedded: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> list[Float[Tensor, "b q d"]]:
        """The queries of a task after each block of the decoder. ``embedded``: the image, if it is embedded already."""
        if task not in TASKS:
            raise ValueError(f"There is no task {task!r}; known are {', '.join(TASKS)}.")
        contexts = []
        if "image" in TASKS[task]:
            if embedded is None:
                if image is None:
                    raise ValueError(f"{task} is asked of a picture, and there is none: give an image.")
                embedded = self.image_encoder.embed_image(image)
            contexts.append(self.read_image(embedded, task))
        if "text" in TASKS[task]:
            if tokens is None:
                raise ValueError(f"{task} is asked of a text, and there is none: give tokens.")
            contexts.append(self.read_text(tokens, mask, task))
        # States, positions and mask of the image, then of the text: (b, p + t, d) twice, (b, p + t).
        return self.decoder(self.queries[task], *(torch.cat(pair, 1) for pair in zip(*contexts)))

    def predict_boxes(self, states: list[Float[Tensor, "b q d"]]) -> DetectionOutput:
        """Classes and boxes after each block of the decoder."""
        *aux_outputs, last = [(self.class_head(x), self.box_head(x)) for x in states]
        return DetectionOutput(*last, aux_outputs)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None = None,
        tokens: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        task: str | None = None,
    ) -> UniTOutput:
        """One task; or, without it, detection for an image, the relation for a text, and all but that for both."""
        if task is None and image is not None and tokens is not None:
            embedded = self.image_encoder.embed_image(image)  # once for three tasks
            of_task = {name: self.solve(name, None, tokens, mask, embedded) for name in ("detection", "vqa", "match")}
            detection = self.predict_boxes(of_task["detection"])
            answer, match = self.answer_head(of_task["vqa"][-1][:, 0]), self.match_head(of_task["match"][-1][:, 0])
            return ImageTextOutput(*detection, answer, match)
        task = task or ("relation" if image is None else "detection")
        states = self.solve(task, image, tokens, mask)
        if task == "detection":
            return self.predict_boxes(states)
        first = states[-1][:, 0]  # (b, d): of the first query, after the last block
        if task == "vqa":
            return AnswerOutput(self.answer_head(first))
        return MatchOutput(self.match_head(first)) if task == "match" else RelationOutput(self.relation_head(first))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Of the task whose labels a batch has: ``object_classes``, ``answer``, ``match_label`` or ``label``.

        Raises ``ValueError`` for an empty batch, one without labels of a task, and impossible boxes.
        """
        image, tokens, mask = (batch.get(name) for name in ("image", "tokens", "mask"))
        if not len(next(iter(batch.values()))):
            raise ValueError("A batch holds at least one picture or text.")
        if "object_classes" in batch:
            check_boxes(batch["boxes"], batch["object_mask"])
            output = self(image, task="detection")
            objects = (batch["object_classes"], batch["boxes"], batch["object_mask"])
            predictions = (*output.aux_outputs, (output.class_logits, output.boxes))
            return set_losses_of_blocks(predictions, *objects)
        if "answer" in batch:
            return {"vqa": class_cross_entropy(self(image, tokens, mask, "vqa").answer_logits, batch["answer"])}
        if "match_label" in batch:
            return {"itm": image_text_matching(self(image, tokens, mask, "match").match_logits, batch["match_label"])}
        if "label" in batch:
            logits = self(None, tokens, mask, "relation").relation_logits
            return {"relation": class_cross_entropy(logits, batch["label"])}
        raise ValueError(f"No task of {', '.join(TASKS)} has its labels in a batch with {', '.join(batch)}.")
