"""Several pixels at a time: the terms of their accumulators are computed side by side, and added by wide instructions.

The accumulators that a pixel adds to (*lanes* of its entry) lie together, so that one instruction adds to all of them
instead of one each; a processor stores only once a cycle, and it is the stores that a pass over a frame waits for. The
compiler behind numba does not find this by itself, so what is done is written down here in its own language. Without
wide instructions in the processor it makes several narrow ones of each.

Functions for four pixels compute the lanes side by side, turn them round, and add the pixels ``j … j + 3`` of a frame
to their places (numbers of entries, uint64), in that order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "AHEAD",
    "ONE_ZERO",
    "add_four_couples",
    "add_four_pairs",
    "add_four_segments",
    "add_four_triples",
    "add_four_whole",
    "add_lanes",
]

AHEAD = 32
"""Pixels by which accumulators are fetched before they are added to: the time that the second level of cache takes."""

ONE_ZERO = 1 << 48
"""What a pixel of 0 adds to the sum of its couple where sums and numbers of zeros are packed into one accumulator."""

_NUMBER = ir.IntType(32)


def _written_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled functions call what `function` writes; they do so without its first argument."""
    made: Callable[..., Any] = intrinsic(function)
    return made


def _items(builder: Any, group: Any) -> list[Any]:
    """Take a tuple of compiled code apart."""
    items: list[Any] = cgutils.unpack_tuple(builder, group)  # type: ignore[no-untyped-call]
    return items


@_written_out
def add_lanes(typing_context: Any, banks: Any, lane: Any, values: Any) -> Any:
    """Add a tuple of 2, 4 or 8 values to ``banks`` (a flat array of their type) from ``lane`` (uint64) on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(banks)(context, builder, arguments[0])
        added = _together(builder, _items(builder, arguments[2]))
        _add_vector(builder, builder.gep(array.data, [arguments[1]]), added)
        return context.get_dummy_value()

    return types.void(banks, lane, values), generate


@_written_out
def add_four_couples(typing_context: Any, pixels: Any, kind: Any, j: Any, word: Any, banks: Any) -> Any:
    """Add the pixels ``j … j + 7``, two by two, to their couples, whose numbers are the four parts of `word`.

    A couple has the v of both pixels. Of `kind` (a literal) ``"errors"`` it has max(1, v) of both besides; of
    ``"packed"`` the v have `ONE_ZERO` added where they are 0. That is for unsigned integers of up to 32 bits; for
    others no code is made.
    """
    if not isinstance(kind, types.StringLiteral):
        return None
    errors, packed = kind.literal_value == "errors", kind.literal_value == "packed"
    narrow = pixels.dtype in (types.uint8, types.uint16, types.uint32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if packed and not narrow:
            return context.get_dummy_value()
        array, _, first, numbers, lanes = arguments
        data = context.make_array(banks)(context, builder, lanes).data
        for k in range(4):
            added = _values(
                context, builder, pixels, banks, array, builder.add(first, ir.Constant(first.type, 2 * k)), 2
            )
            if packed:
                none = builder.icmp_unsigned("==", added, _all(added.type, 0))
                added = builder.select(none, _all(added.type, ONE_ZERO), added)
            if errors:
                added = _pick(builder, added, _at_least_one(builder, added, banks), [0, 1, 2, 3])
            number = builder.lshr(numbers, ir.Constant(numbers.type, 16 * k))
            number = builder.and_(number, ir.Constant(numbers.type, 0xFFFF))
            begin = builder.mul(number, ir.Constant(number.type, added.type.count))
            _add_vector(builder, builder.gep(data, [begin]), added)
        return context.get_dummy_value()

    return types.void(pixels, kind, j, word, banks), generate


@_written_out
def add_four_whole(typing_context: Any, pixels: Any, j: Any, places: Any, banks: Any) -> Any:
    """Add v and max(1, v)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _values(context, builder, pixels, banks, arguments[0], arguments[1], 4)
        _scatter(context, builder, banks, arguments[3], arguments[2], [values, _at_least_one(builder, values, banks)])
        return context.get_dummy_value()

    return types.void(pixels, j, places, banks), generate


@_written_out
def add_four_pairs(typing_context: Any, pixels: Any, share: Any, errors: Any, j: Any, places: Any, banks: Any) -> Any:
    """Add share·v and v, with `errors` (a literal) also share² and (1 - share)² times max(1, v)."""
    if not isinstance(errors, types.BooleanLiteral):
        return None
    wanted = errors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _values(context, builder, pixels, banks, arguments[0], arguments[3], 4)
        (near,) = _shares(context, builder, share, arguments[1], arguments[3], 1)
        lanes = [builder.fmul(values, near), values]
        if wanted:
            far = builder.fsub(_all(near.type, 1.0), near)
            variance = _at_least_one(builder, values, banks)
            lanes += [builder.fmul(builder.fmul(variance, part), part) for part in (near, far)]
        _scatter(context, builder, banks, arguments[5], arguments[4], lanes)
        return context.get_dummy_value()

    return types.void(pixels, share, errors, j, places, banks), generate


@_written_out
def add_four_triples(typing_context: Any, pixels: Any, share: Any, errors: Any, j: Any, places: Any, banks: Any) -> Any:
    """Add before·v, after·v, v, 0; with `errors` (a literal) also max(1, v) times before², after², middle², and 0."""
    if not isinstance(errors, types.BooleanLiteral):
        return None
    wanted = errors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _values(context, builder, pixels, banks, arguments[0], arguments[3], 4)
        before, after = _shares(context, builder, share, arguments[1], arguments[3], 2)
        idle = _all(values.type, 0.0)
        lanes = [builder.fmul(values, before), builder.fmul(values, after), values, idle]
        if wanted:
            middle = builder.fsub(builder.fsub(_all(before.type, 1.0), before), after)
            variance = _at_least_one(builder, values, banks)
            lanes += [builder.fmul(builder.fmul(variance, part), part) for part in (before, after, middle)]
            lanes.append(idle)
        _scatter(context, builder, banks, arguments[5], arguments[4], lanes)
        return context.get_dummy_value()

    return types.void(pixels, share, errors, j, places, banks), generate


@_written_out
def add_four_segments(
    typing_context: Any, pixels: Any, chosen: Any, first: Any, share: Any, lanes: Any, errors: Any, j: Any, sums: Any
) -> Any:
    """Add share·v to so many (`lanes`, a literal) bins that follow each other, for the segments ``j … j + 3``.

    ``first`` has the first bin of each segment, and ``chosen`` its pixel; None where that is the segment's own number.
    With `errors` (a literal) a bin has two accumulators, and the second gets share²·max(1, v). The accumulators of the
    segment `AHEAD` of ``j`` are fetched into the nearest cache; ``first`` reaches so far.
    """
    if not isinstance(lanes, types.IntegerLiteral) or not isinstance(errors, types.BooleanLiteral):
        return None
    each, own, wanted = lanes.literal_value, isinstance(chosen, types.NoneType), errors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(kind: Any, number: int) -> Any:
            return context.make_array(kind)(context, builder, arguments[number]).data

        raw, firsts, shares, lane, begin = data(pixels, 0), data(first, 2), data(share, 3), data(sums, 7), arguments[6]
        if own:
            loaded = _load(builder, builder.gep(raw, [begin]), context.get_data_type(pixels.dtype), 4)
        else:
            numbers = [_number_at(builder, data(chosen, 1), begin, k) for k in range(4)]
            loaded = _together(builder, [builder.load(builder.gep(raw, [number])) for number in numbers])
        values = _converted(context, builder, loaded, pixels, sums)
        widths = _at_least_one(builder, values, sums) if wanted else None
        first_share = builder.mul(begin, ir.Constant(begin.type, each))
        terms = []
        for group in range(each):
            part = _load(builder, _item(builder, shares, first_share, 4 * group), ir.FloatType(), 4)
            part = builder.fpext(part, values.type)
            of_share = [(4 * group + k) // each for k in range(4)]
            term = builder.fmul(part, _pick(builder, values, values, of_share))
            if widths is None:
                terms += [builder.extract_element(term, ir.Constant(_NUMBER, k)) for k in range(4)]
                continue
            square = builder.fmul(builder.fmul(part, part), _pick(builder, widths, widths, of_share))
            halves = [_pick(builder, term, square, half) for half in ([0, 4, 1, 5], [2, 6, 3, 7])]
            terms += [_pick(builder, half, half, pair) for half in halves for pair in ([0, 1], [2, 3])]
        step = 2 if wanted else 1
        _fetch(builder, builder.gep(lane, [_number_at(builder, firsts, begin, AHEAD, step)]))
        for k in range(4):
            place = _number_at(builder, firsts, begin, k, step)
            for n in range(each):
                pointer = _item(builder, lane, place, step * n)
                if wanted:
                    _add_vector(builder, pointer, terms[each * k + n])
                else:
                    builder.store(builder.fadd(builder.load(pointer), terms[each * k + n]), pointer)
        return context.get_dummy_value()

    return types.void(pixels, chosen, first, share, lanes, errors, j, sums), generate


def _together(builder: Any, values: list[Any]) -> Any:
    vector = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for k, value in enumerate(values):
        vector = builder.insert_element(vector, value, ir.Constant(_NUMBER, k))
    return vector


def _item(builder: Any, data: Any, begin: Any, number: int) -> Any:
    return builder.gep(data, [builder.add(begin, ir.Constant(begin.type, number))])


def _number_at(builder: Any, data: Any, begin: Any, number: int, times: int = 1) -> Any:
    """Load an unsigned number as uint64, and multiply it."""
    loaded = builder.zext(builder.load(_item(builder, data, begin, number)), ir.IntType(64))
    return builder.mul(loaded, ir.Constant(loaded.type, times))


def _fetch(builder: Any, pointer: Any) -> None:
    """Ask for a line of the cache that will be written to."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _NUMBER, _NUMBER, _NUMBER])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
    builder.call(fetch, [builder.bitcast(pointer, byte), *(ir.Constant(_NUMBER, number) for number in (1, 3, 1))])


def _values(context: Any, builder: Any, pixels: Any, banks: Any, array: Any, j: Any, number: int) -> Any:
    """Load so many pixels as the accumulators' type."""
    data = context.make_array(pixels)(context, builder, array).data
    loaded = _load(builder, builder.gep(data, [j]), context.get_data_type(pixels.dtype), number)
    return _converted(context, builder, loaded, pixels, banks)


def _converted(context: Any, builder: Any, loaded: Any, pixels: Any, banks: Any) -> Any:
    wanted = ir.VectorType(context.get_data_type(banks.dtype), loaded.type.count)
    if loaded.type == wanted:
        return loaded
    if isinstance(pixels.dtype, types.Float):
        return builder.fpext(loaded, wanted)
    signed = pixels.dtype.signed
    if isinstance(banks.dtype, types.Integer):
        return builder.sext(loaded, wanted) if signed else builder.zext(loaded, wanted)
    return builder.sitofp(loaded, wanted) if signed else builder.uitofp(loaded, wanted)


def _shares(context: Any, builder: Any, share: Any, array: Any, j: Any, each: int) -> list[Any]:
    """Load the shares of four pixels, ``each`` of one, as float64."""
    data = context.make_array(share)(context, builder, array).data
    begin = builder.gep(data, [builder.mul(j, ir.Constant(j.type, each))])
    loaded = _load(builder, begin, ir.FloatType(), 4 * each)
    double = ir.VectorType(ir.DoubleType(), 4)
    return [
        builder.fpext(_pick(builder, loaded, loaded, [each * k + n for k in range(4)]), double) for n in range(each)
    ]


def _at_least_one(builder: Any, values: Any, banks: Any) -> Any:
    if isinstance(banks.dtype, types.Float):
        one = _all(values.type, 1.0)
        return builder.select(builder.fcmp_ordered(">", values, one), values, one)
    one = _all(values.type, 1)
    compare = builder.icmp_signed if banks.dtype.signed else builder.icmp_unsigned
    return builder.select(compare(">", values, one), values, one)


def _scatter(context: Any, builder: Any, banks: Any, array: Any, places: Any, lanes: list[Any]) -> None:
    """Turn lanes of four pixels round to pixels of two lanes, or four at a time, and add each to its place."""
    data = context.make_array(banks)(context, builder, array).data
    pixels = [builder.mul(place, ir.Constant(place.type, len(lanes))) for place in _items(builder, places)]
    groups = [lanes] if len(lanes) == 2 else [lanes[k : k + 4] for k in range(0, len(lanes), 4)]
    turned = [_turn_two(builder, *group) if len(group) == 2 else _turn_four(builder, *group) for group in groups]
    for number, pixel in enumerate(pixels):
        for k, group in enumerate(turned):
            begin = builder.add(pixel, ir.Constant(pixel.type, 4 * k))
            _add_vector(builder, builder.gep(data, [begin]), group[number])


def _turn_two(builder: Any, a: Any, b: Any) -> list[Any]:
    even, odd = _pick(builder, a, b, [0, 4, 2, 6]), _pick(builder, a, b, [1, 5, 3, 7])
    return [_pick(builder, source, source, part) for part in ([0, 1], [2, 3]) for source in (even, odd)]


def _turn_four(builder: Any, a: Any, b: Any, c: Any, d: Any) -> list[Any]:
    even, odd = [0, 4, 2, 6], [1, 5, 3, 7]
    low = [_pick(builder, a, b, mask) for mask in (even, odd)]
    high = [_pick(builder, c, d, mask) for mask in (even, odd)]
    halves = [0, 1, 4, 5], [2, 3, 6, 7]
    return [_pick(builder, low[k], high[k], half) for half in halves for k in (0, 1)]


def _pick(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_NUMBER, len(places)), places))


def _all(vector: Any, value: float) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _load(builder: Any, place: Any, item: Any, number: int) -> Any:
    """Load so many items from a place that need not be a multiple of their size together, nor of one's."""
    return builder.load(builder.bitcast(place, ir.VectorType(item, number).as_pointer()), align=1)


def _add_vector(builder: Any, place: Any, added: Any) -> None:
    pointer = builder.bitcast(place, added.type.as_pointer())
    before = builder.load(pointer, align=8)
    whole = isinstance(added.type.element, ir.IntType)
    builder.store(builder.add(before, added) if whole else builder.fadd(before, added), pointer, align=8)
