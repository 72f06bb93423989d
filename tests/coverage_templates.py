"""Which branches of the templates are rendered: each body of ``if``, ``elif``, ``else`` and ``for``, the side of an
``if`` that has no ``else``, and both sides of ``{{ x if y else z }}``.

    nice python -P -m tests.coverage_templates --specs 100     the zoo and drawn specs, on every kind of target
    nice python -P -m tests.coverage_templates --choose        a few specs that render what all of them render
    pytest -p tests.coverage_templates tests/backends          what these tests render in their own process

Prints how many there are in each template, and those that nothing renders."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from jinja2 import Environment, nodes

from attnc.codegen.environment import environment
from attnc.codegen.pipeline import compile
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "examples" / "zoo"
TEMPLATES = ROOT / "codegen" / "templates"
TARGETS = ("generic", "sm_100", "cpu")

# What drawn specs seldom hold: each was the only one to render some branch.
RARE = (
    "input ids: i32[B, M]  input t: bool[B, H, R, S]  score dot(q, k)  mask document(ids) or blocks(t, 16)  "
    "normalize softmax",
    "score elu(dot(q, k)) + abs(dot(q, k))  normalize softmax",
    "score dot(q, k)  mask window(3) or strided(4)  normalize softmax1  emit entropy, rowmax, colsum",
    "score dot(q, k)  mask window(3) or strided(4)  normalize sigmoid  emit entropy, rowmax, colsum",
    "score dot(q, k)  mask window(3) or strided(4)  normalize softmax  emit entropy",
    "score j - i  mask causal  normalize softmax  emit entropy",
    "query q, p  key k, l  value v  param w: int[H] = [1, 2]  score dot(q, k) + dot(p, l)  mask abs(i - j) <= w[h]  "
    "normalize softmax",
    "input e: f32[H]  score dot(q, k) + e[h] * j  normalize softmax(sink = e[h])",
    "input g: f32[D]  score dot(rmsnorm(q, g), rmsnorm(k, g))  normalize softmax",
    "score dot(q, k)  mask window(3) or strided(4)  normalize sigmoid",
    "score dot(q, k)  normalize softmax  emit total, colsum",
    "score dot(q, k)  mask (i % 7) * (i % 7) > 3 and causal  normalize softmax",
    "input low: f32[B, H, N]  let x = sin(low[b, h, i])  score dot(q, k)  "
    "normalize weight(s) = exp(s) divisor(t) = max(t, exp(x * x * x))",
    "input on: bool[B, N]  score dot(q, k)  mask on[b, i] and causal  normalize softmax",
    "input low: f32[B, H, N]  score dot(q, k)  normalize weight(s) = exp(s) divisor(t) = max(t, exp(low[b, h, i] - 1))",
    "score softplus(dot(q, k)) + log1p(dot(q, k) ** 2)  normalize softmax1  emit lse, total, entropy",
    "score dot(q, k)  normalize sigmoid  emit total",
    "score dot(q, k)  mask window(3) or strided(4)  normalize softmax1",
    "input e: f32[H]  score dot(q, k) + e[h] * j  mask window(3) or strided(4)  normalize softmax",
    "input ids: i32[B, M]  input bias: f32[H, N, M]  score dot(q, k) + bias[h, i, j]  mask document(ids)  "
    "normalize softmax",
    "score dot(rmsnorm(q), k)  normalize softmax  emit colsum",
    "branch x { score dot(q, k)  normalize softmax1 }  branch y { score tanh(dot(q, k))  normalize softmax1 }  "
    "output x + y",
    "score dot(q, k)  mask j < 70 or (j > 80 and causal)  normalize softmax",
    "score dot(q, k) / 2  normalize softmax  emit entropy",
    "input bias: f32[B, R, N, M]  score dot(q, k) + bias[b, int(dot(q, k)), i, j]  normalize softmax",
)

# A few that render every branch, together (a test holds them to it): what ``--choose`` printed.
CHOSEN = """
rare2@sm_100 rare19 retention bigbird rare7@cpu rare15 rare20 rare3 longformer_global rare0 padded alibi rare6
forgetting tree rare5 rare18 disentangled longrope rare1 rare21 random_features rare16 bigbird_blocks block_table
heavy_hitters mla_absorbed sinks rare9 rare10 rare17 rare23
rare24
"""

Branch = tuple[str, int, str]  # template, line, what of it


@dataclass(frozen=True)
class Job:
    """A spec of the zoo, or one of the rare ones by its number, for a target."""

    name: str
    target: str = "generic"

    @classmethod
    def named(cls, text: str) -> Job:
        return cls(*text.split("@"))

    def __str__(self) -> str:
        return self.name if self.target == "generic" else f"{self.name}@{self.target}"

    @property
    def text(self) -> str:
        if self.name.startswith("rare"):
            return f"attention rare {{ {RARE[int(self.name[4:])]} }}"
        return (ZOO / f"{self.name}.attn").read_text(encoding="utf-8")

    def render(self) -> None:
        compile(compile_text(Source(name="<text>", text=self.text), {}), self.target)


class Coverage:
    """The branches of an environment's templates, and how often each was rendered."""

    def __init__(self, made: Environment) -> None:
        self.environment = made
        self.hits: Counter[Branch] = Counter()
        self._parse = made._parse
        made.bytecode_cache = None
        if made.cache is not None:
            made.cache.clear()
        made.globals["_hit"] = self._hit
        made._parse = self._marked  # type: ignore[method-assign]

    def _hit(self, template: str, line: int, what: str, value: Any = "") -> Any:
        self.hits[template, line, what] += 1
        return value

    def _marked(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """The template's tree, every branch with a call that counts it."""
        tree = self._parse(source, name, filename)
        mark = partial(self._mark, name or "")
        for node in list(tree.find_all(nodes.If)):
            chain = any(node in parent.elif_ for parent in tree.find_all(nodes.If))
            self._enclose(node.body, mark(node, "elif" if chain else "if"))
            if not chain:
                self._enclose(node.else_, mark(node, "else" if node.else_ else "not"))
        for loop in list(tree.find_all(nodes.For)):
            self._enclose(loop.body, mark(loop, "for"))
        for choice in list(tree.find_all(nodes.CondExpr)):
            choice.expr1 = mark(choice, f"`{_shown(choice.test)}`", choice.expr1)
            choice.expr2 = mark(choice, f"not `{_shown(choice.test)}`", choice.expr2 or nodes.Const(""))
        nodes_of = tree.set_environment(self.environment)
        assert isinstance(nodes_of, nodes.Template)
        return nodes_of

    def _enclose(self, body: list[nodes.Node], mark: nodes.Call) -> None:
        body.insert(0, nodes.Output([mark]))

    def _mark(self, template: str, node: nodes.Node, what: str, value: nodes.Expr | None = None) -> nodes.Call:
        self.hits[template, node.lineno, what] += 0
        given: list[nodes.Expr] = [nodes.Const(template), nodes.Const(node.lineno), nodes.Const(what)]
        given += [] if value is None else [value]
        made = nodes.Call(nodes.Name("_hit", "load"), given, [], None, None)
        return made.set_lineno(node.lineno, override=True)  # type: ignore[return-value]

    def rendered(self, job: Job) -> set[Branch]:
        """The branches that a job renders."""
        before = Counter(self.hits)
        job.render()
        return {branch for branch, count in self.hits.items() if count > before[branch]}

    @property
    def missed(self) -> list[Branch]:
        """Those never rendered, of all templates."""
        for path in sorted(TEMPLATES.rglob("*.j2")):  # those that nothing asked for count too
            self.environment.get_template(path.relative_to(TEMPLATES).as_posix())
        return sorted(branch for branch, count in self.hits.items() if not count)

    def report(self) -> str:
        """A line for each template, and those of its branches that were never rendered."""
        every = self.missed
        lines = []
        for template in sorted({template for template, _, _ in self.hits}):
            count = sum(branch[0] == template for branch in self.hits)
            missed = [branch for branch in every if branch[0] == template]
            lines.append(f"{template}: {count - len(missed)} of {count}")
            lines += [f"  line {line}: {what}" for _, line, what in missed]
        return "\n".join([*lines, f"{len(self.hits) - len(every)} of {len(self.hits)} branches are rendered"])


def _shown(node: nodes.Expr) -> str:
    """A condition, in few words."""
    names = [x.name if isinstance(x, nodes.Name) else x.attr for x in node.find_all((nodes.Name, nodes.Getattr))]
    if isinstance(node, nodes.Name | nodes.Getattr):
        names.append(node.name if isinstance(node, nodes.Name) else node.attr)
    return ".".join(reversed(names)) or type(node).__name__


def covering(rendered: dict[Job, set[Branch]]) -> list[Job]:
    """A few of the jobs that render what all of them do. Always the one next that renders most that is new."""
    left, chosen = set[Branch]().union(*rendered.values()), []
    while left:
        best = max(rendered, key=lambda job: len(rendered[job] & left))
        left -= rendered[best]
        chosen.append(best)
    return chosen


def every_job(targets: Iterable[str] = TARGETS) -> list[Job]:
    names = [*(path.stem for path in sorted(ZOO.glob("*.attn"))), *(f"rare{n}" for n in range(len(RARE)))]
    return [Job(name, target) for target in targets for name in names]


def main() -> int:
    from attnc.testing.grammar import specs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--specs", type=int, default=100, help="drawn ones, beside the zoo (100)")
    parser.add_argument("--choose", action="store_true", help="print a few specs that render what all do, no more")
    options = parser.parse_args()
    coverage = Coverage(environment())
    rendered = {job: coverage.rendered(job) for job in every_job()}
    if options.choose:
        print(*covering(rendered))
        return 0
    drawn = 0

    @settings(
        max_examples=max(options.specs, 1), deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @seed(0)
    @given(specs())
    def every(text: str) -> None:
        nonlocal drawn
        drawn += 1
        try:
            compile(compile_text(Source(name="<text>", text=text), {}), TARGETS[drawn % 2])
        except SpecError as error:
            print(f"{error.diagnostics[0].code}: {text.split('{')[0].strip()}", file=sys.stderr)

    if options.specs:
        every()
    print(coverage.report())
    return 0


# --- as a plugin of pytest ----------------------------------------------------------------------

_PLUGIN: list[Coverage] = []


def pytest_configure(config: object) -> None:
    _PLUGIN.append(Coverage(environment()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(_PLUGIN[0].report())


if __name__ == "__main__":
    sys.exit(main())
