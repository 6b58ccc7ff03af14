"""A written manifest says what was meant: read back, it is the same ModelSpec."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from models.endpoint import EndpointProtocol, EndpointSpec, ImageFormat
from models.manifest import LUNGS, WHOLE_IMAGE, manifest_text, parse_manifest
from models.model_spec import (
    Activation,
    Code,
    Evidence,
    Fit,
    GateSpec,
    InputSpec,
    LabelSpec,
    Mode,
    ModelKind,
    ModelSpec,
    OutputNames,
    Pooling,
    PoolingSpec,
)

FOLDER = Path("/models")
fractions = st.floats(0, 1, exclude_min=True, exclude_max=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16).filter(str.strip)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@st.composite
def inputs(draw: st.DrawFn) -> InputSpec:
    channels: Literal[1, 3] = draw(st.sampled_from((1, 3)))
    return InputSpec(
        height=draw(st.integers(16, 512)),
        width=draw(st.integers(16, 512)),
        channels=channels,
        value_range=draw(st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])),
        mean=draw(st.sampled_from([(0.0,), (0.5,) * channels])),
        std=draw(st.sampled_from([(1.0,), (0.25,) * channels])),
        padding=draw(fractions),
        layout=draw(st.sampled_from(["NHWC", "NCHW"])),
        equalise=draw(st.sampled_from(["none", "histogram", "clahe"])),
        fit=draw(st.sampled_from(Fit)),
    )


@st.composite
def endpoints(draw: st.DrawFn, kind: ModelKind) -> EndpointSpec | None:
    if kind is ModelKind.FINDINGS:
        url, image = "http://10.0.0.1:9000/root", draw(st.sampled_from(ImageFormat))
        return EndpointSpec(EndpointProtocol.FINDINGS_HTTP, url, "vendor", "1", image=image)
    protocol = draw(st.sampled_from([EndpointProtocol.OPEN_INFERENCE_HTTP, EndpointProtocol.OPEN_INFERENCE_GRPC]))
    files: dict[str, Any] = draw(
        st.sampled_from([{}, {"ca": "/ca.pem", "certificate": "/node.pem", "token_file": "/run/token"}])
    )
    elsewhere = EndpointSpec(protocol, "https://gpu:8000", "chest", draw(st.sampled_from(["", "3"])), **files)
    return draw(st.none() | st.just(elsewhere))


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    kind = draw(st.sampled_from(ModelKind))
    endpoint = draw(endpoints(kind))
    keras = endpoint is None and draw(st.booleans())
    graph = endpoint is None and not keras and draw(st.booleans())
    own = list(LUNGS)
    if kind is not ModelKind.LUNGS:
        own = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    labels = tuple(
        LabelSpec(
            name,
            Code(draw(texts), "99TEST", name),
            draw(fractions),
            localised=(shown := draw(st.booleans())),
            map_relative_threshold=draw(st.sampled_from([0.0, 0.375])) if shown else 0.0,
            mode=draw(st.sampled_from(Mode)),
            evidence=draw(
                st.none() | st.just(Evidence(40, 0.75, 0.5, 0.875)) | st.just(Evidence(40, 0.75, 0.5, 0.875, 0.625))
            ),
            # The first is nobody's part, so that there is never a circle.
            parent=own[0] if name != own[0] and draw(st.booleans()) else "",
            site=draw(st.none() | st.just(Code("39607008", "SCT", "Lung"))),
        )
        for name in own
    )
    return ModelSpec(
        name="a-model",
        version="1.2.3",
        title=draw(texts),
        kind=kind,
        file=FOLDER / ("a-model.toml" if endpoint else "network.keras" if keras else "network.onnx"),
        endpoint=endpoint,
        digest="ab" * 32,
        device_uid="2.25.17",
        input=WHOLE_IMAGE if kind is ModelKind.FINDINGS else draw(inputs()),
        activation=draw(
            st.sampled_from([each for each in Activation if (each, kind) != (Activation.SOFTMAX, ModelKind.DETECTOR)])
        ),
        labels=labels,
        card=draw(st.none() | st.just(FOLDER / "card.md")),
        mode=draw(st.sampled_from(Mode)),
        gate=draw(st.sampled_from([GateSpec(0.25), GateSpec(0.5, 14.5)])) if kind is ModelKind.GATE else None,
        outputs=draw(
            st.sampled_from(
                [
                    OutputNames(),
                    OutputNames(probabilities="dense_1", neighbours="nearest"),
                    OutputNames(columns=("normal-1", *own)),
                ]
            )
        ),
        pooling=PoolingSpec(draw(st.sampled_from(Pooling)), draw(fractions))
        if kind is ModelKind.SEGMENTER
        else PoolingSpec(),
        onnx=FOLDER / "network.onnx" if keras else None,
        onnx_digest="cd" * 32 if keras else "",
        keras=FOLDER / "network.keras.json" if graph else None,
        keras_digest="ef" * 32 if graph else "",
        index=draw(st.none() | st.just(FOLDER / "network.index.csv")),
    )


@given(specs())
def test_what_is_written_is_read(spec: ModelSpec) -> None:
    assert parse_manifest(tomllib.loads(manifest_text(spec)), FOLDER / "a-model.toml") == spec
