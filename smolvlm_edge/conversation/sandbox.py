"""Where a checkpoint's chat template runs: a stranger's program, which may reach nothing and take little.

Jinja's sandbox keeps it from everything but its arguments. It does not keep it from `'a' * 6000000000`, `7 **
100000000` or three loops inside each other, so here everything that can grow is measured before it is made, and every
turn of a loop, call of a macro and piece of text is paid for from a budget.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from itertools import islice
from math import prod
from threading import local
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

BUDGET = 8_000_000
"""What one rendering may spend: about two seconds of a slow processor. A character that is looked at costs 1."""
STEP, CALL = 10, 100
"""What a piece of the program costs, and a call, filter or operator."""
LARGEST = 1 << 20
"""Characters or items of anything that a template makes."""
MOST_BITS = 4096
"""Of a whole number."""
GROWING = {"batch", "center", "expandtabs", "format", "format_map", "indent", "join", "ljust", "replace", "rjust"}
GROWING |= {"slice", "to_bytes", "tojson", "translate", "urlize", "wordwrap", "xmlattr", "zfill"}
"""Filters and methods whose result may be as large as the product of what they are given."""
WIDTH = re.compile(r"%[^a-zA-Z%]*(\d{4}|\*)|{[^{}]*(\d{4}|{)")
"""A width in a format text that nobody means, or that is not in it."""


class _Spent(local):
    left = 0


_spent = _Spent()


def begin() -> None:
    """A new budget for what this thread renders next."""
    _spent.left = BUDGET


def spend(cost: int) -> None:
    """Pay.

    Raises:
        TemplateError: The budget does not hold as much.
    """
    _spent.left -= cost
    if _spent.left < 0:
        raise TemplateError("it takes too much time or memory")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up (chat_template_utils.py, _compile_jinja_template), with a budget."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        """Take no more than transformers gives."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=_paid,
        )
        self.code_generator_class = _Counting
        self.filters["tojson"] = _tojson
        self.filters = {name: _measured(name, function) for name, function in self.filters.items()}
        self.tests = {name: _measured(name, function) for name, function in self.tests.items()}
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def compiled(self, source: str) -> Callable[..., str]:
        """The template, to be called with its variables; each rendering begins with a budget of its own."""
        begin()
        tree = self.parse(source)
        bodies: Iterator[nodes.For | nodes.Macro | nodes.CallBlock]
        bodies = tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))
        for node in bodies:
            node.body.insert(0, _step(node))
        template = self.from_string(tree)

        def render(**variables: Any) -> str:
            begin()
            return template.render(**variables)

        return render

    def step(self, cost: int) -> None:
        """A turn of a loop, or a call."""
        spend(cost)

    def paid(self, value: Any) -> Any:
        """The value, paid for by its size."""
        return _paid(value)

    def joined(self, values: Iterable[Any]) -> str:
        """The texts of values, one after the other."""
        return "".join(str(_paid(value)) for value in values)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, method or macro."""
        spend(CALL)
        args = tuple(_listed(value) for value in args)
        _check_growth(getattr(function, "__name__", ""), [getattr(function, "__self__", None), *args, *kwargs.values()])
        return _paid(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, which Jinja replaces by one of its own."""
        if (replaced := super().wrap_str_format(value)) is not None:
            _check_growth("format", [value.__self__])
        return replaced

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**`, `+` and `%`."""
        spend(CALL)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and _bits(left) * max(abs(right), 1) <= MOST_BITS):
            raise TemplateError("a power is too large")
        if operator == "*":
            if numbers and _bits(left) + _bits(right) > MOST_BITS:
                raise TemplateError("a number is too large")
            if not numbers:
                _check_growth("ljust", [left, right])
        if operator == "%" and isinstance(left, str):
            _check_growth("format", [left, right])
        return _paid(super().call_binop(context, operator, left, right))


class _Counting(CodeGenerator):
    """Has what Jinja's operators make, and what they look at, paid for."""

    def visit_Call(  # noqa: N802 - as the base class has it
        self, node: nodes.Call, frame: Frame, forward_caller: bool = False
    ) -> None:
        if isinstance(node.node, nodes.EnvironmentAttribute):  # `_step` put it there
            self.write(f"environment.step({node.args[0].as_const()})")
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - as the base class has it
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802 - as the base class has it
        self.write("(")
        self._pay(node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:  # noqa: N802 - as the base class has it
        self.write(f" {_OPERATORS[node.op]} ")
        self._pay(node.expr, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802 - as the base class has it
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.paid(")
        super().visit_Getitem(node, frame)
        self.write(")")

    def _pay(self, node: nodes.Expr, frame: Frame) -> None:
        self.write("environment.paid(")
        self.visit(node, frame)
        self.write(")")


_OPERATORS = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<=", "in": "in", "notin": "not in"}


class _Generation(Extension):
    """{% generation %} marks the assistant's words for training; here only the words count."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Leave the tag out and keep what it encloses."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _step(node: nodes.Node) -> nodes.Node:
    """A statement that pays for what stands in a loop or macro."""
    pieces = list(node.find_all(nodes.Node))
    cost = STEP * (1 + len(pieces)) + sum(len(piece.data) for piece in pieces if isinstance(piece, nodes.TemplateData))
    call = nodes.Call(nodes.EnvironmentAttribute("step"), [nodes.Const(cost)], [], None, None)
    return nodes.ExprStmt(call).set_lineno(node.lineno)


def _measured(name: str, function: Any) -> Callable[..., Any]:
    """A filter or test that looks at the size of what it is given first, and pays for it and for what it makes."""

    @wraps(function)  # with the marks by which Jinja knows what to pass
    def measured(*args: Any, **kwargs: Any) -> Any:
        spend(CALL)
        args = tuple(_listed(value) for value in args)
        _check_growth(name, [*args, *kwargs.values()])
        return _paid(function(*args, **kwargs))

    return measured


def _check_growth(name: str, values: list[Any]) -> None:
    sizes = [_size(value) for value in values]
    spend(sum(sizes))
    if name not in GROWING:
        return
    if name == "replace":  # the text that is looked for makes nothing longer
        texts = [size for value, size in zip(values, sizes, strict=True) if isinstance(value, str)]
        sizes, values = [texts[0], texts[-1]] if texts else [], []
    numbers = [abs(int(value)) for value in values if isinstance(value, int | float) and abs(value) <= LARGEST**2]
    if name in ("format", "format_map"):
        if any(isinstance(value, str) and WIDTH.search(value) for value in values[:1]):
            raise TemplateError("it asks for too wide a text")
    elif prod(max(number, 1) for number in (*sizes, *numbers)) > LARGEST * 8:
        raise TemplateError("it makes too large a text or list")


def _paid(value: Any) -> Any:
    spend(_size(value))
    return value


def _size(value: Any) -> int:
    """Characters and items in a value and in what it holds, counted no further than the budget goes."""
    size, waiting = 0, [value]
    while waiting:
        value = waiting.pop()
        size += 1
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += value
        elif isinstance(value, int):
            size += value.bit_length() // 3
        if size > LARGEST or len(waiting) > LARGEST:
            raise TemplateError("it makes too large a text or list")
    return size


def _listed(value: Any) -> Any:
    """What comes one by one, as a list: its length must be known."""
    if not isinstance(value, Iterator):
        return value
    values = []
    for each in islice(value, LARGEST):
        spend(STEP)
        values.append(each)
    return values


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 1


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format_: str) -> str:
    if not isinstance(format_, str) or WIDTH.search(format_):
        raise TemplateError("it asks for too wide a text")
    return datetime.now().strftime(format_)
