"""One image through the whole pipeline: gate, networks, thresholds, places. Pure but for the networks and the clock."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cache
from time import perf_counter

import numpy as np

from models.contract import Finding, ModelInput, ModelUse, NotAnalysed, Pixels, Prediction
from models.findings import Answers, findings_answered, findings_of, in_lungs, with_similar, without_answer
from models.gate import assess, inspect
from models.lesions import with_lesions
from models.lung_fields import LungFields, lung_fields
from models.model_spec import Mode, ModelKind, ModelSpec
from models.pipeline import Pipeline
from models.radiograph.contrast import letterbox_for, prepare
from models.radiograph.geometry import Letterbox
from models.remote.findings_server import FindingsServer
from models.runtime.executor import Device, Executor, ModelOutputError, ModelUnavailableError, RunsOn, library_of
from models.runtime.loading import load
from models.same_finding import reconciled
from models.similar import read_index

Clock = Callable[[], float]
Answered = tuple[list[Letterbox], list[Answers]]

BATCH = 8
"""Images that go through a network together, at most."""


class Stages:
    """Seconds that one image has spent in each stage."""

    def __init__(self, clock: Clock, seconds: Mapping[str, float] | None = None) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        begin = self._clock()
        try:
            yield
        finally:
            self.add(stage, self._clock() - begin)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


Ask = Callable[[ModelSpec, Sequence[ModelInput], Sequence[Stages], str], Answered]
"""Prepares images for a network and runs it on them; the time is added to the stages of each."""


class _Ahead:
    """Networks that are asked about one image at the same time, and waited for when their turn comes.

    So the seconds of its stages overlap.
    """

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._begun: dict[str, tuple[Future[Answered], Stages]] = {}

    def begin(self, threads: ThreadPoolExecutor, spec: ModelSpec, images: Sequence[ModelInput], stage: str) -> None:
        """Begin to ask a network."""
        stages = Stages(self._clock)  # of its own: those of the image are for one thread
        self._begun[spec.name] = threads.submit(self._ask, spec, images, [stages], stage), stages

    def ask(self, spec: ModelSpec, images: Sequence[ModelInput], stages: Sequence[Stages], stage: str) -> Answered:
        """What the network has answered; one that was not begun is asked now."""
        if spec.name not in self._begun:
            return self._ask(spec, images, stages, stage)
        answering, own = self._begun.pop(spec.name)
        answered = answering.result()
        for name, seconds in own.seconds.items():
            stages[0].add(name, seconds)
        return answered

    def wait(self) -> None:
        """Wait for those that nobody has asked for, because another one has failed."""
        wait(answering for answering, _ in self._begun.values())


@cache
def _threads() -> ThreadPoolExecutor:
    """For the networks of one image, all predictors of the process together."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="network")


class Predictor:
    """A pipeline with its networks loaded."""

    def __init__(
        self,
        pipeline: Pipeline,
        executors: Mapping[str, Executor],
        *,
        clock: Clock = perf_counter,
        batch: int = BATCH,
        servers: Mapping[str, FindingsServer] | None = None,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        """Take a pipeline and an executor for each of its models, by name; for those of kind ``findings`` a server.

        With ``threads`` the networks of a single image run side by side, otherwise in turn.

        Raises:
            ValueError: A model of the pipeline has neither.
        """
        self._servers = dict(servers or {})
        missing = [spec.name for spec in pipeline if spec.name not in executors and spec.name not in self._servers]
        if missing:
            raise ValueError(f"no executor for {', '.join(missing)}")
        self.pipeline = pipeline
        self._executors = dict(executors)
        self._indices = {spec.name: read_index(spec.index) for spec in pipeline if spec.index is not None}
        self._clock = clock
        self._batch = max(1, batch)
        self._threads = threads

    @property
    def runs_on(self) -> RunsOn:
        """``gpu`` where at least one network runs there, else ``cpu``; ``server`` where none runs here."""
        found = {each.runs_on for each in self._executors.values()}
        found |= {each.runs_on for each in self._servers.values()}
        return "gpu" if "gpu" in found else "server" if found == {"server"} else "cpu"

    @property
    def device(self) -> str:
        """The same for people and records, with the library that makes a difference: ``gpu (TensorFlow)``."""
        on_gpu = [each.spec for each in self._executors.values() if each.runs_on == "gpu"]
        return f"{self.runs_on} (TensorFlow)" if "TensorFlow" in map(library_of, on_gpu) else self.runs_on

    @property
    def other_files(self) -> Mapping[str, str]:
        """The digest of the file that runs, by model, where it is not the one that the pipeline's digest stands for:
        ``file`` on a GPU, on a CPU its export where there is one."""
        found = {}
        for spec in self.pipeline:
            if (executor := self._executors.get(spec.name)) is not None:
                usual = spec.digest if executor.runs_on == "gpu" else spec.onnx_digest or spec.digest
                if executor.spec.digest != usual:
                    found[spec.name] = executor.spec.digest
        return found

    @property
    def uses(self) -> tuple[ModelUse, ...]:
        """How results and database name the models: with the digests of the files that run here."""
        other = self.other_files
        return tuple(replace(use, digest=other.get(use.name, use.digest)) for use in self.pipeline.uses)

    def with_pipeline(self, pipeline: Pipeline) -> Predictor:
        """The same networks under another pipeline of the same models: other modes, thresholds or options.

        Raises:
            ValueError: A model of the pipeline has no executor.
        """
        return Predictor(
            pipeline,
            self._executors,
            clock=self._clock,
            batch=self._batch,
            servers=self._servers,
            threads=self._threads,
        )

    def side_by_side(self) -> Predictor:
        """The same networks, which answer a single image at the same time where they run on the CPU.

        Each answers as it does in turn. That is sooner where cores are idle, and takes more of them where none is: a
        network alone leaves cores idle between its layers, and while its input is prepared and its answer is read.
        """
        if self.runs_on != "cpu":
            return self
        beside = copy(self)
        beside._threads = self._threads or _threads()
        return beside

    def only(self, names: Collection[str]) -> Predictor:
        """The same networks, of which those models run; quality check and lungs always do."""
        pipeline = self.pipeline.only(names)
        return self if pipeline is self.pipeline else self.with_pipeline(pipeline)

    def warm(self) -> None:
        """Run every network once.

        Raises:
            ModelOutputError: A network does not answer as its manifest says.
        """
        for executor in self._executors.values():
            executor.warm()

    def predict(self, model_input: ModelInput, timings: Mapping[str, float] | None = None) -> Prediction:
        """Say all that the pipeline says about one image; ``timings`` are seconds of stages before this one.

        Raises:
            ModelOutputError: A network's answer cannot be believed.
            ModelUnavailableError: A network runs elsewhere and cannot be asked now.
        """
        return self.predict_all([model_input], [timings or {}])[0]

    def predict_all(
        self, images: Sequence[ModelInput], timings: Sequence[Mapping[str, float]] | None = None
    ) -> tuple[Prediction, ...]:
        """Predict what is waiting in batches; each image gets the prediction that it would get alone.

        Raises:
            ModelOutputError: A network's answer cannot be believed.
            ModelUnavailableError: A network runs elsewhere and cannot be asked now.
        """
        stages = [Stages(self._clock, seconds) for seconds in timings or [{}] * len(images)]
        not_analysed = self._gate(images, stages)
        fit = [number for number, reason in enumerate(not_analysed) if reason is None]
        findings: dict[int, Sequence[Finding]] = dict.fromkeys(fit, ())
        idle: dict[int, set[str]] = {number: set() for number in fit}
        with self._asking([images[number] for number in fit]) as ask:
            for spec in self.pipeline.models:
                asked = [number for number in fit if self._is_asked(spec, findings[number])]
                for number in set(fit) - set(asked):
                    idle[number].add(spec.name)
                chosen = [images[number] for number in asked], [stages[number] for number in asked]
                for number, own in zip(asked, self._findings(spec, *chosen, ask), strict=True):
                    findings[number] = (*findings[number], *own)
            fields = self._in_lungs(fit, images, stages, findings, ask)
        uses = self.uses
        for number in fit:
            findings[number] = reconciled(findings[number], self.pipeline.models)
        return tuple(
            Prediction(
                shape=image.shape,
                findings=tuple(findings.get(number, ())),
                not_analysed=not_analysed[number],
                models=tuple(use for use in uses if use.name not in idle.get(number, ())),
                timings=stages[number].seconds,
                lungs_cut=number in fields and fields[number].cut,
                lung_fields=fields.get(number),
                lungs_by=self.pipeline.lungs.name if self.pipeline.lungs is not None else "",
            )
            for number, image in enumerate(images)
        )

    def _in_lungs(
        self,
        fit: Sequence[int],
        images: Sequence[ModelInput],
        stages: Sequence[Stages],
        findings: dict[int, Sequence[Finding]],
        ask: Ask,
    ) -> dict[int, LungFields]:
        """Clip what lies in the lungs, and tell lesions apart; returns the lungs of each image where they are found."""
        spec, minimum = self.pipeline.lungs, self.pipeline.processing.minimum_fraction
        if spec is None or not fit:
            for number in fit:
                findings[number] = self._separated(findings[number])
            return {}
        found: dict[int, LungFields] = {}
        chosen = [images[number] for number in fit], [stages[number] for number in fit]
        letterboxes, answers = ask(spec, *chosen, "lungs")
        for number, letterbox, answer in zip(fit, letterboxes, answers, strict=True):
            with stages[number].timed("localise"):
                fields = lung_fields(answer["maps"], letterbox)
                if fields is not None:
                    findings[number] = [in_lungs(finding, fields, minimum) for finding in findings[number]]
                    # A copy has none of the masks of the source's size that were made here: it lives longer.
                    found[number] = replace(fields, model=spec.name)
                findings[number] = self._separated(findings[number], fields)
        return found

    def _separated(self, findings: Sequence[Finding], fields: LungFields | None = None) -> list[Finding]:
        """The findings, those whose manifest says so with their lesions."""
        asked = {
            (spec.name, label.name): (spec.pooling, label.calibration)
            for spec in self.pipeline.models
            for label in spec.labels
            if label.lesions
        }
        return [
            with_lesions(finding, asked[key][0], fields if finding.lungs else None, asked[key][1])
            if (key := (finding.model, finding.label)) in asked
            else finding
            for finding in findings
        ]

    def _is_asked(self, spec: ModelSpec, so_far: Sequence[Finding]) -> bool:
        """Whether a model runs on an image with these findings of the models before it."""
        condition = self.pipeline.condition_of(spec.name)
        return condition is None or any(
            finding.model == condition.asked and finding.label == condition.label and finding.present
            for finding in so_far
        )

    def _findings(
        self, spec: ModelSpec, images: Sequence[ModelInput], stages: Sequence[Stages], ask: Ask
    ) -> list[tuple[Finding, ...]]:
        """Findings of one model for each image; one in shadow that fails does not cost the others their findings."""
        try:
            if spec.kind is ModelKind.FINDINGS:
                return [self._answered(spec, image, stage) for image, stage in zip(images, stages, strict=True)]
            letterboxes, answers = ask(spec, images, stages, "infer")
        except (ModelOutputError, ModelUnavailableError) as error:
            if spec.mode is not Mode.SHADOW:
                raise
            return [without_answer(spec, str(error))] * len(images)
        findings = []
        for letterbox, answer, stage in zip(letterboxes, answers, stages, strict=True):
            with stage.timed("localise"):
                own = findings_of(spec, answer, letterbox, self.pipeline.processing.minimum_fraction)
                findings.append(with_similar(own, spec, answer, self._indices.get(spec.name, ())))
        return findings

    def _answered(self, spec: ModelSpec, image: ModelInput, stage: Stages) -> tuple[Finding, ...]:
        with stage.timed("infer"):
            return findings_answered(spec, self._servers[spec.name].ask(image))

    def _gate(self, images: Sequence[ModelInput], stages: Sequence[Stages]) -> list[NotAnalysed | None]:
        """The reason not to analyse each image, or None."""
        reasons: list[NotAnalysed | None] = []
        for image, stage in zip(images, stages, strict=True):
            with stage.timed("gate"):
                reasons.append(inspect(image))
        spec = self.pipeline.gate
        if spec is None:
            return reasons
        open_yet = [number for number, reason in enumerate(reasons) if reason is None]
        chosen = [images[number] for number in open_yet]
        _, answers = self._ask(spec, chosen, [stages[number] for number in open_yet], "gate")
        for number, answer in zip(open_yet, answers, strict=True):
            distance = float(answer["distance"]) if "distance" in answer else None
            reasons[number] = assess(answer["probabilities"], distance, spec)
        return reasons

    @contextmanager
    def _asking(self, images: Sequence[ModelInput]) -> Iterator[Ask]:
        """How the networks are asked about ``images``: in turn, or (where a single one is analysed) all ahead."""
        if self._threads is None or len(images) != 1:
            yield self._ask
            return
        ahead = _Ahead(self._ask, self._clock)
        try:
            for spec, stage in self._independent():
                ahead.begin(self._threads, spec, images, stage)
            yield ahead.ask
        finally:
            ahead.wait()

    def _independent(self) -> Iterator[tuple[ModelSpec, str]]:
        """The networks here that wait for no finding of another one, with the stage that their time belongs to."""
        stages = [(spec, "infer") for spec in self.pipeline.models if self.pipeline.condition_of(spec.name) is None]
        for spec, stage in [*stages, *([(self.pipeline.lungs, "lungs")] if self.pipeline.lungs is not None else [])]:
            if spec.name in self._executors and self._executors[spec.name].runs_on == "cpu":
                yield spec, stage

    def _ask(self, spec: ModelSpec, images: Sequence[ModelInput], stages: Sequence[Stages], stage: str) -> Answered:
        """Prepare images for a network and run it on them, so many at a time."""
        letterboxes = [letterbox_for(image, spec.input) for image in images]
        answers: list[Answers] = []
        for at in range(0, len(images), self._batch):
            part = slice(at, at + self._batch)
            tensors = []
            for image, letterbox, own in zip(images[part], letterboxes[part], stages[part], strict=True):
                with own.timed("prepare"):
                    tensors.append(prepare(image, letterbox, spec.input))
            outputs = self._run(spec, np.stack(tensors), stages[part], stage)
            answers.extend({name: array[row] for name, array in outputs.items()} for row in range(len(tensors)))
        return letterboxes, answers

    def _run(self, spec: ModelSpec, batch: Pixels, stages: Sequence[Stages], stage: str) -> Answers:
        begin = self._clock()
        outputs = self._executors[spec.name].run(batch)
        each = (self._clock() - begin) / len(stages)
        for own in stages:
            own.add(stage, each)
        return outputs


def load_predictor(
    pipeline: Pipeline,
    *,
    device: Device = "auto",
    threads: int = 0,
    batch: int = BATCH,
    clock: Clock = perf_counter,
) -> Predictor:
    """Load and warm every network of a pipeline; call it once in a process, after the fork.

    Raises:
        ModelLoadError: A file cannot be loaded.
        ModelOutputError: A network does not answer as its manifest says.
    """
    tensors = [spec for spec in pipeline if spec.kind is not ModelKind.FINDINGS]
    executors = {spec.name: load(spec, device=device, threads=threads, batch=batch) for spec in tensors}
    servers = {spec.name: FindingsServer(spec) for spec in pipeline if spec.kind is ModelKind.FINDINGS}
    predictor = Predictor(pipeline, executors, clock=clock, batch=batch, servers=servers)
    predictor.warm()
    return predictor
