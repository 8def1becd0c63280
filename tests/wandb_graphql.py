"""GraphQL without a schema, and the filters of W&B's public API: what the loopback server answers questions with.

graphql-core parses the query; each selected field is looked up in plain dictionaries, where a callable gets the
arguments. A field that is not there is null and noted in ``unknown``, so a client that asks for more does not break.
"""

from __future__ import annotations

import re
from typing import Any

from graphql import parse
from graphql.language import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, OperationDefinitionNode

INTERFACES = {"ArtifactSequence": "ArtifactCollection", "ArtifactPortfolio": "ArtifactCollection"}


def literal(node: Any, variables: dict) -> Any:
    """The value of an argument, with variables put in."""
    kind = node.kind
    if kind == "variable":
        return variables.get(node.name.value)
    if kind == "null_value":
        return None
    if kind == "list_value":
        return [literal(v, variables) for v in node.values]
    if kind == "object_value":
        return {f.name.value: literal(f.value, variables) for f in node.fields}
    return {"int_value": int, "float_value": float}.get(kind, lambda v: v)(node.value)


class Query:
    """One request's document, its variables, and the walk over what it selects."""

    def __init__(self, body: dict, unknown: set[str]):
        document = parse(body["query"])
        self.variables = dict(body.get("variables") or {})
        self.fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
        wanted = body.get("operationName")
        self.operation = next((o for o in operations if o.name and o.name.value == wanted), operations[0])
        self.name = self.operation.name.value if self.operation.name else "?"
        self.unknown = unknown
        for v in self.operation.variable_definitions or ():
            if v.default_value is not None:
                self.variables.setdefault(v.variable.name.value, literal(v.default_value, {}))

    def answer(self, root: dict) -> dict:
        return self.select(root, self.operation.selection_set, self.name)

    def select(self, value: dict, selection: Any, where: str) -> dict:
        out: dict[str, Any] = {}
        for node in selection.selections:
            if self.left_out(node):
                continue
            if isinstance(node, FieldNode):
                out[node.alias.value if node.alias else node.name.value] = self.field(value, node, where)
                continue
            fragment = self.fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            kind, mine = fragment.type_condition, value.get("__typename")
            if kind is None or mine is None or kind.name.value in (mine, INTERFACES.get(mine)):
                out.update(self.select(value, fragment.selection_set, where))
        return out

    def left_out(self, node: Any) -> bool:
        for directive in node.directives or ():
            condition = bool(literal(directive.arguments[0].value, self.variables))
            if condition == (directive.name.value == "skip"):
                return True
        return False

    def field(self, value: dict, node: FieldNode, where: str) -> Any:
        name = node.name.value
        where = f"{where}.{name}"
        if name not in value and name != "__typename":
            self.unknown.add(where)
        found = value.get(name)
        if callable(found):
            found = found(**{a.name.value: literal(a.value, self.variables) for a in node.arguments})
        if node.selection_set is None or found is None:
            return found
        if isinstance(found, list):
            return [self.select(item, node.selection_set, where) for item in found]
        return self.select(found, node.selection_set, where)


def dig(document: Any, dotted: str) -> Any:
    if isinstance(document, dict) and dotted in document:
        return document[dotted]
    for name in dotted.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


OPERATORS = {
    "$eq": lambda got, want: got == want,
    "$ne": lambda got, want: got != want,
    "$in": lambda got, want: got in want,
    "$nin": lambda got, want: got not in want,
    "$gt": lambda got, want: got is not None and got > want,
    "$gte": lambda got, want: got is not None and got >= want,
    "$lt": lambda got, want: got is not None and got < want,
    "$lte": lambda got, want: got is not None and got <= want,
    "$exists": lambda got, want: (got is not None) == want,
    "$regex": lambda got, want: re.search(want, got or "") is not None,
}


def matches(document: dict, wanted: dict) -> bool:
    """The subset of Mongo's query language that the public API sends."""
    for key, want in wanted.items():
        if key in ("$and", "$or"):
            found = [matches(document, w) for w in want]
            ok = all(found) if key == "$and" else any(found) or not found
        else:
            got = dig(document, re.sub(r"^config\.(.+)\.value$", r"config.\1", key))
            if isinstance(want, dict):
                ok = all(OPERATORS[operator](got, value) for operator, value in want.items())
            else:
                ok = got == want or (isinstance(got, list) and want in got)
        if not ok:
            return False
    return True
