"""A model of the ladder as a source: ``rbp-lab train`` trains it, ``open`` opens it. ``rules`` says how it is made."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.data.corpus import Corpus
from rbp_lab.errors import LabError
from rbp_lab.ladder.kept import KeptCheckpoints, kept_steps, save_model
from rbp_lab.ladder.rules import (
    HEADS,
    MOST_SLOTS,
    depth_rule,
    kind_of,
    non_embedding_parameters,
    rate_rule,
    warmup_rule,
)
from rbp_lab.models.hf import HFModel
from rbp_lab.models.source import OpenModel
from rbp_lab.names import check_label, check_name
from rbp_lab.store.aside import recovered
from rbp_lab.store.layout import TRAINING_FILE, Store

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

    from rbp_lab.ladder.checkpoint import Checkpoints
    from rbp_lab.ladder.hooks import StepHook
    from rbp_lab.records import ModelInfo

# Raised whenever the same settings would give another model, so that an old directory is trained anew.
RECIPE_VERSION = 1
# Fields that say nothing of how a model is trained.
_NOT_TRAINED = {"name", "family", "directory", "quantisation", "checkpoints", "step", "cache"}


def training_key(settings: Mapping[str, Any], corpus_fingerprint: str) -> str:
    """What names a training, 16 hexadecimal digits: a hash of ``LadderModel.settings`` and of the text."""
    what = json.dumps([dict(settings), corpus_fingerprint], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def _mark(step: int) -> str:
    return f"@step{step}"


@dataclass(frozen=True)
class LadderModel:
    """A model of the ladder: trained by ``rbp-lab train``, then measured like any other.

    directory: where it is kept. width, layers: d and L (None: ``depth_rule``). vocabulary: ids of the tokenizer.
    tokens: training tokens (rounded up to whole batches). context: T. batch: rows of a step. seed: of the initial
    weights and of the order of the training rows. groups: m, 1 for ordinary training; above, only the multiset of the
    next tokens of m positions is known (``aggregate.positions``). quantisation: of the trained weights when they are
    measured, as of ``HFModel``. checkpoints: of its training that are kept, log-spaced, the end among them; each is a
    model of its own (``members``). step: whose weights these are, None for the end. cache: as of ``HFModel``.
    """

    name: str
    width: int
    directory: str
    family: str = "ladder"
    layers: int | None = None
    vocabulary: int = 1024
    tokens: int = 716_800
    context: int = 128
    batch: int = 8
    seed: int = 0
    groups: int = 1
    quantisation: str | None = None
    checkpoints: int | None = None
    step: int | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "model.name")
        check_label(self.family, "model.family")
        if self.width < 2 * HEADS or self.width % (2 * HEADS):
            raise LabError(
                f"model.width must be a multiple of {2 * HEADS} ({HEADS} heads of an even size); got {self.width}"
            )
        for field in ("tokens", "batch") if self.layers is None else ("tokens", "batch", "layers"):
            if getattr(self, field) < 1:
                raise LabError(f"model.{field} must be at least 1; got {getattr(self, field)}")
        if self.context < 2:
            raise LabError(f"model.context must be at least 2 tokens; got {self.context}")
        if self.seed < 0:
            raise LabError(f"model.seed must be 0 or more; got {self.seed}")
        if not 1 <= self.groups <= MOST_SLOTS:
            raise LabError(f"model.groups must be 1 to {MOST_SLOTS} positions; got {self.groups}")
        if self.checkpoints is not None and self.checkpoints < 1:
            raise LabError(f"model.checkpoints must be at least 1 checkpoint, or null; got {self.checkpoints}")

    @property
    def _law(self) -> str:
        """The family of models that share a law with it."""
        return self.family if self.groups == 1 else f"{self.family} m={self.groups}"

    @property
    def depth(self) -> int:
        return depth_rule(self.width) if self.layers is None else self.layers

    @property
    def steps(self) -> int:
        return math.ceil(self.tokens / (self.batch * self.context))

    @property
    def tokens_seen(self) -> int:
        """Training tokens, of whole batches, up to the step whose weights these are."""
        return (self.step or self.steps) * self.batch * self.context

    @property
    def non_embedding(self) -> int:
        """S."""
        return non_embedding_parameters(self.width, self.depth)

    def members(self) -> list[LadderModel]:
        """The checkpoints that are kept, by step: ``name@step…`` in a directory of that name, last the model itself."""
        if self.checkpoints is None:
            return [self]
        steps = kept_steps(self.steps, warmup_rule(self.steps), self.checkpoints)
        return [*map(self._at, steps[:-1]), replace(self, checkpoints=None)]

    def _at(self, step: int) -> LadderModel:
        directory = Path(self.directory)
        beside = str(directory.with_name(directory.name + _mark(step)))
        return replace(self, name=self.name + _mark(step), directory=beside, checkpoints=None, step=step)

    def lacks(self, corpus: Corpus | None = None) -> int | None:
        """The first step that is to be kept and of which no checkpoint of this training is there; None without one."""
        return next((member.step for member in self.members()[:-1] if member.differs(corpus) is not None), None)

    def settings(self) -> dict[str, Any]:
        """What, with the text, determines the trained model: names and places do not enter."""
        chosen = {k: v for k, v in asdict(self).items() if k not in _NOT_TRAINED | {"layers"}}
        if self.groups == 1:
            del chosen["groups"]  # models that were trained before there were groups are the same
        rates = rate_rule(self.width)
        return {"recipe": RECIPE_VERSION, **chosen, "layers": self.depth, "heads": HEADS, "rates": rates}

    def trained_on(self) -> dict[str, Any] | None:
        """What ``training.json`` in the directory says, None when no finished model is there."""
        try:
            return json.loads((recovered(Path(self.directory)) / TRAINING_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise LabError(f"{Path(self.directory) / TRAINING_FILE} is not JSON; {self._how(force=True)}") from error

    def differs(self, corpus: Corpus | None = None) -> str | None:
        """Why the directory does not hold this model (trained on corpus, when given); None when it does."""
        found = self.trained_on()
        if found is None:
            return "not trained yet"
        settings, have = self.settings(), found.get("settings", {})
        keys = [key for key in settings if settings[key] != have.get(key)]
        if keys:
            return f"the one there was trained with {keys[0]}={have.get(keys[0])}, not {settings[keys[0]]}"
        if found.get("step") != self.step:
            return f"the one there is of step {found.get('step', 'last')}, not {self.step or 'last'}"
        if corpus is not None and found["corpus"]["fingerprint"] != corpus.fingerprint:
            then, now = (info.get("python") for info in (found["corpus"]["info"], corpus.info))
            why = f" ({then} then, {now} now)" if then != now else ""
            return f"the one there was trained on other text{why}"
        return None

    def build(self) -> GPTNeoXForCausalLM:
        """The untrained model with its initial weights, fp32, reproducible by ``seed``.

        Standard deviations of maximal-update parametrisation (arXiv 2203.03466, table 8): 1/√fan_in for matrices, a
        constant for embeddings. The head and the projections into the residual stream begin at 0, which it allows
        (section D.2): the noise of random ones would differ between widths.
        """
        import torch
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        config = GPTNeoXConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=HEADS,
            intermediate_size=4 * self.width,
            max_position_embeddings=self.context,
            # Pythia rotates a quarter of each head; heads here are as small as 10, so all of it.
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = GPTNeoXForCausalLM(config).float()
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    kind = kind_of(name)
                    into_stream = name.endswith(("attention.dense.weight", "dense_4h_to_h.weight"))
                    if kind == "embedding":
                        weight.normal_(0, 0.5)
                    elif kind == "matrix" and not into_stream:
                        weight.normal_(0, weight.shape[1] ** -0.5)
                    else:
                        weight.fill_(1.0 if kind == "vector" and name.endswith("weight") else 0.0)
        return model

    def train(
        self, corpus: Corpus, store: Store, hooks: Sequence[StepHook] = (), checkpoints: Checkpoints | None = None
    ) -> Path:
        """Train on the corpus and save model, tokenizer and ``training.json``; returns the directory.

        The directory appears complete at the end or not at all; so do those of the checkpoints that stay, each when its
        step is done. An interrupted training is taken up from ``checkpoints``; without them it begins anew.
        store: where tokenizer and token ids are kept, shared by the models of a ladder.
        """
        import torch
        import transformers

        from rbp_lab.data.tokenize import tokenize
        from rbp_lab.data.windows import Windowing, plan_windows
        from rbp_lab.ladder.aggregate.positions import GroupedPositions
        from rbp_lab.ladder.tokenizer import bpe_tokenizer
        from rbp_lab.ladder.training import Schedule, batch_rows, cross_entropy, train_loop
        from rbp_lab.measurement.progress import TrainingProgress

        tokenizer = bpe_tokenizer(corpus, self.vocabulary, store)
        packed = Windowing(windows="packed")
        stream = plan_windows(tokenize(corpus, tokenizer, packed, store), packed).tokens[:]
        rows = batch_rows(stream, self.context, self.batch, self.steps, self.seed)
        model = self.build()
        schedule = Schedule(self.steps, warmup_rule(self.steps))

        def about(member: LadderModel) -> dict[str, Any]:
            return {
                "name": member.name,
                "family": self._law,
                "settings": self.settings(),
                "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint, "info": corpus.info},
                "non_embedding_parameters": self.non_embedding,
                "training_tokens": member.tokens_seen,
                "passes_over_the_text": round(member.tokens_seen / len(stream), 3),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            } | ({} if member.step is None else {"step": member.step})

        kept = KeptCheckpoints(self.members()[:-1], model, tokenizer, about)
        begin = datetime.now(UTC)
        with TrainingProgress(f"train {self.name}", self.steps, self.batch * self.context) as progress:
            losses = train_loop(
                model, rows, rate_rule(self.width), kind_of, schedule, (progress, kept, *hooks), checkpoints,
                cross_entropy if self.groups == 1 else GroupedPositions(self.groups, self.seed),
            )  # fmt: skip
        before = checkpoints.seconds if checkpoints is not None else 0.0
        record = about(self) | {
            "loss": [round(float(loss), 4) for loss in losses],
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(before + (datetime.now(UTC) - begin).total_seconds(), 1),
            "resumed_at": checkpoints.resumed_at if checkpoints is not None else [],
        }
        save_model(model, tokenizer, record, self.directory)
        return Path(self.directory)

    def open(self) -> OpenModel:
        """The trained model; LabError when it is not trained, or trained otherwise."""
        return self._trained().open()

    def look(self) -> ModelInfo:
        """As ``HFModel.look``, of the trained model."""
        return self._trained().look()

    def _trained(self) -> HFModel:
        why = self.differs()
        if why is not None:
            raise LabError(f"model {self.name} is not in {self.directory}: {why}; {self._how()}")
        return HFModel(
            path=str(Path(self.directory).absolute()), name=self.name, family=self._law,
            training_tokens=self.tokens_seen, quantisation=self.quantisation, step=self.step or self.steps,
            warmup_tokens=warmup_rule(self.steps) * self.batch * self.context, cache=self.cache,
        )  # fmt: skip

    def _how(self, force: bool = False) -> str:
        """The command that trains this model, with the settings that are not the default."""
        name = self.name if self.step is None else self.name.removesuffix(_mark(self.step))
        inline = name == f"ladder-w{self.width}"  # the name that conf/model/ladder.yaml gives
        words = [f"model=ladder model.width={self.width}" if inline else f"model={name}"]
        if self.step is not None:
            words.append("model.checkpoints=N, with the N that is measured")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _NOT_TRAINED | {"width"} and value != field.default:
                words.append(f"model.{field.name}={value}")
        return f"run: rbp-lab train {' '.join(words)}" + (" force=true" if force else "")
