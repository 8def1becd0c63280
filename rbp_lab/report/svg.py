"""Matplotlib figures as SVG for a page: colours follow the reader's theme, points say their names."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from rbp_lab.figures.style import GREY, INK, LIGHT, PALETTE, point_titles, style

# Colours with a meaning in the style become the page's; every other colour gets a variable of its own.
NAMED = {"#ffffff": "--paper", "#000000": "--ink", INK: "--ink", GREY: "--grey", LIGHT: "--line"}
DARK_PAPER = "#16181c"
# Least contrast with a dark page: of colours that text is set in, and of marks alone (WCAG 1.4.3, 1.4.11).
TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0


def inline_svg(figure: Figure, prefix: str, alt: str) -> str:
    """The figure as one ``<svg>`` element for a page.

    prefix: makes its ids unique on the page. Text stays text, set in the reader's fonts. Colours become
    ``var(--…)``; see ``colour_rules``. Each point that was described carries a ``<title>``. The same figure gives the
    same string.
    """
    buffer = io.StringIO()
    with style(**{"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = _titled(svg, point_titles(figure))
    svg = _own_ids(svg, prefix)
    svg = re.sub(r"#[0-9a-f]{6}\b(?=[;\"])", lambda m: f"var({_variable(m.group())})", svg)
    svg = re.sub(r"<(?!title|/)[^>]*>", _short, svg).replace("xlink:href", "href")
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    head = re.match(r"<svg[^>]*>", svg).group()
    width, height = (float(v) for v in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head).groups())
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {width * 4 / 3:.0f}px" role="img" tabindex="0" '
        f'aria-label="{escape(alt)}" xmlns="http://www.w3.org/2000/svg">'
    )
    return opening + svg[len(head) :].strip()


def style_rules(svgs: Sequence[str]) -> tuple[list[str], str]:
    """The SVGs with classes in place of style attributes, and the CSS rules of those classes.

    A page whose policy allows styles by their hash may have no style attributes.
    """
    classes: dict[str, str] = {}

    def classed(tag: re.Match) -> str:
        text = tag.group()
        style = re.search(r' style="([^"]*)"', text)
        if style is None:
            return text
        name = classes.setdefault(style.group(1).strip("; "), f"s{len(classes)}")
        text = text.replace(style.group(), "")
        if ' class="' in text:
            return text.replace(' class="', f' class="{name} ', 1)
        return re.sub(r"^<(\w+)", rf'<\1 class="{name}"', text)

    changed = [re.sub(r"<\w[^>]*>", classed, svg) for svg in svgs]
    # twice the class, to weigh more than the page's own rules for what is inside a figure
    return changed, "".join(f".{name}.{name}{{{style}}}\n" for style, name in classes.items())


def colour_rules(html: str) -> tuple[str, str]:
    """CSS declarations of the colour variables that ``html`` uses: (for a light page, for a dark one)."""
    used = sorted(set(re.findall(r"var\(--h([0-9a-f]{6})\)", html)))
    light = "".join(f"--h{c}:#{c};" for c in used)
    families = {colour.lower() for colour in PALETTE}
    least = {c: TEXT_CONTRAST if f"#{c}" in families else MARK_CONTRAST for c in used}
    return light, "".join(f"--h{c}:{lifted('#' + c, least[c])};" for c in used)


def lifted(colour: str, contrast: float = TEXT_CONTRAST) -> str:
    """The colour, mixed with as little white as gives it that contrast with a dark page."""
    rgb = _rgb(colour)
    for step in range(21):
        mixed = tuple(round(c + (255 - c) * step / 20) for c in rgb)
        if (_luminance(mixed) + 0.05) / (_luminance(_rgb(DARK_PAPER)) + 0.05) >= contrast:
            break
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _short(tag: re.Match) -> str:
    """A tag without digits below a hundredth of a point, spaces of layout, and the font that the page sets."""
    text = re.sub(r"(-?\d+\.\d{2})\d+", r"\1", tag.group())
    text = re.sub(r"; font-family: 'DejaVu Sans'|font-family: 'DejaVu Sans'; ", "", text)
    text = re.sub(r"\s*transform=\"rotate\(-0 [^\"]*\"", "", text)
    return re.sub(r"\s+", " ", text)


def _variable(colour: str) -> str:
    return NAMED.get(colour, f"--h{colour[1:]}")


def _rgb(colour: str) -> tuple[int, int, int]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _luminance(rgb: tuple[int, int, int]) -> float:
    linear = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _titled(svg: str, titles: dict[str, tuple[str, ...]]) -> str:
    """Each marker of a described line gets its title; a line with markers out of view gets none, never a wrong one."""
    for gid, texts in titles.items():
        start = svg.find(f'<g id="{gid}">')
        if start < 0:
            continue
        end = _group_end(svg, start)
        group = svg[start:end]
        uses = list(re.finditer(r"<use ([^>]*?)/>", group))
        if len(uses) != len(texts):
            continue
        parts, last = [], 0
        for use, text in zip(uses, texts, strict=True):
            parts += [group[last : use.start()], f'<use class="pt" {use.group(1)}><title>{escape(text)}</title></use>']
            last = use.end()
        svg = svg[:start] + "".join(parts) + group[last:] + svg[end:]
    return svg


def _group_end(svg: str, start: int) -> int:
    depth = 0
    for tag in re.finditer(r"<g(?: [^>]*[^>/])?>|</g>", svg[start:]):
        depth += 1 if tag.group() != "</g>" else -1
        if depth == 0:
            return start + tag.end()
    raise ValueError("unbalanced groups in an SVG")


def _own_ids(svg: str, prefix: str) -> str:
    """Ids that are referred to, made unique by the prefix and short; all others removed."""
    referred = sorted(set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg)))
    wanted = {name: f"{prefix}-{i}" for i, name in enumerate(referred)}

    def own(match: re.Match) -> str:
        return f' id="{wanted[match.group(1)]}"' if match.group(1) in wanted else ""

    svg = re.sub(r' id="([^"]*)"', own, svg)
    return re.sub(r"(url\(|href=\")#([^)\"]+)", lambda m: f"{m.group(1)}#{wanted[m.group(2)]}", svg)
