"""The tables of words: which view and which part of the body a header names, in whatever language."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.radiograph.body_parts import BodyPart, body_part_in
from models.radiograph.views import View, frontal_view, not_frontal, views_in
from models.radiograph.words import plain_words


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("CHEST_PORTABLE", " CHEST PORTABLE "),
        ("Tórax  p.a.", " TORAX PA "),
        ("A/P-supine", " AP SUPINE "),
        ("AP/PA", " AP PA "),
        (" ...", ""),
        ("", ""),
    ],
)
def test_words_are_made_plain(text: str, plain: str) -> None:
    assert plain_words(text) == plain


@pytest.mark.parametrize(
    ("text", "other"),
    [
        *((f"{way} {side}", View.DECUBITUS) for way in ("PA", "AP") for side in ("LLD", "RLD", "LEFT DECUB")),
        ("Thorax a.p. Linksseitenlage", View.DECUBITUS),
        ("Thorax Seitenlage links", View.DECUBITUS),
        ("AP AXIAL", View.LORDOTIC),
        ("AP LORDOTIC", View.LORDOTIC),
        ("XTABLE LATERAL", View.LATERAL),
        ("cross-table lat.", View.LATERAL),
        ("LL", View.LATERAL),
        ("PA/LAT", View.LATERAL),
        ("Thorax seitlich", View.LATERAL),
        ("radiografía de tórax, perfil", View.LATERAL),
        ("torace proiezione latero-laterale", View.LATERAL),
        ("klatka piersiowa boczna", View.LATERAL),
        ("胸部侧位片", View.LATERAL),
        ("RAO", View.OBLIQUE),
        ("Thorax schräg", View.OBLIQUE),
        ("SWIMMERS", View.OTHER),
        ("PA", None),
        ("AP decubito supino", None),
        ("CHEST", None),
        # Words that only begin like one.
        ("Plato", None),
        ("Pathology", None),
    ],
)
def test_what_is_not_frontal(text: str, other: View | None) -> None:
    assert not_frontal(views_in(text)) == other


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("PA", View.PA),
        ("chest p.a.", View.PA),
        ("THORAX AP", View.AP),
        ("postero-anterior", View.PA),
        ("Anteroposterior erect", View.AP),
        ("FRONTAL", View.FRONTAL),
        ("thorax de face", View.FRONTAL),
        ("tórax de frente", View.FRONTAL),
        ("胸部正位", View.FRONTAL),
        ("PA LLD", None),
        ("AP/PA", None),
        ("", None),
        ("ERECT", None),
    ],
)
def test_frontal_view(text: str, view: View | None) -> None:
    assert frontal_view(text) == view


@pytest.mark.parametrize(
    "text",
    [
        *("CHEST", "CHEST PA", "PORT_CHEST", "Thorax", "TORAX", "Tórax PA", "Torace", "poumons", "Thoraxaufnahme"),
        *(
            "klatka piersiowa",
            "hrudník",
            "akciğer",
            "грудная клетка",
            "органы грудной клетки",
            "胸部",
            "胸片正位",
            "흉부",
        ),
    ],
)
def test_a_chest_in_many_languages(text: str) -> None:
    assert body_part_in(text) == BodyPart(chest=True, other="")


@pytest.mark.parametrize(
    ("text", "other"),
    [
        *(("XR KNEE LEFT", "knee"), ("Becken a.p.", "becken"), ("Hüfte links", "hufte"), ("genou droit", "genou")),
        *(("mano izquierda", "mano"), ("ginocchio", "ginocchio"), ("ombro", "ombro"), ("膝关节", "膝")),
        *(("THORACIC SPINE", "thoracic spine"), ("columna torácica AP", "columna toracica"), ("BWS", "bws")),
    ],
)
def test_another_part(text: str, other: str) -> None:
    assert body_part_in(text) == BodyPart(chest=False, other=other)


def test_both_and_neither() -> None:
    assert body_part_in("chest and abdomen") == BodyPart(chest=True, other="abdomen")
    assert body_part_in("Routine, portable") == BodyPart(chest=False, other="")


@given(st.text(max_size=40))
def test_any_text_is_read(text: str) -> None:
    assert set(views_in(text)) <= set(View)
    assert frontal_view(text) in {None, View.PA, View.AP, View.FRONTAL}
    assert isinstance(body_part_in(text), BodyPart)
    assert plain_words(plain_words(text)) == plain_words(text)
