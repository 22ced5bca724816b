"""What lies between the loop's matrix products, as six Triton kernels: three for a step forward, three for one back.

For a single input slot that competes with a null row, on a GPU. A program is one unit of one sequence; `listen` and
its backward kernel have one for every head too. Buffers are whole, with t beside them: a pointer per step would be
compiled anew for every alignment. Where `keep` is off, one step's room serves all steps.

Axes as in `plan`: T time, B batch, K units, S unit size, G gates times S, H input heads, D their key size, C heads of
the communication, P their key size and M their value size. `wide_x` is the power of two that holds `x`. All is computed
in `wide`, float32 or float64, whatever type the buffers have.

Importing this module imports Triton, which comes with PyTorch's builds for GPUs.
"""

import triton
import triton.language as tl

# ---------------------------------------------------------------- functions


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    small = tl.exp(-2.0 * tl.abs(x))  # never overflows
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0.0, -size, size)


@triton.jit
def _row(pointer, inside, there, wide: tl.constexpr):
    return tl.load(pointer + inside, mask=there, other=0.0).to(wide)


@triton.jit
def _starts_anew(starts, t, steps, batch, b, has_starts: tl.constexpr):
    """Whether sequence b starts an episode at step t; not beyond the last step."""
    anew = False
    if has_starts:
        anew = tl.load(starts + t.to(tl.int64) * batch + b, mask=t < steps, other=0) != 0
    return anew


# ---------------------------------------------------------------- forward: units attend, compete and update


@triton.jit
def _shares(
    queries, keys, h, anew, stride, units: tl.constexpr, key_size: tl.constexpr, wide_units: tl.constexpr,
    wide_keys: tl.constexpr, scale: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Return every unit's attention on the null row in head h, 1 / (1 + exp(q k)), and that on the slot."""
    k, d = tl.arange(0, wide_units), tl.arange(0, wide_keys)
    there = (k < units)[:, None] & (d < key_size)[None, :]
    key = _row(keys, h * key_size + d, d < key_size, wide)
    query = _row(queries, k[:, None] * stride + h * key_size + d[None, :], there, wide)
    score = tl.sum(tl.where(anew, 0.0, query) * key[None, :], 1) * scale
    return 1.0 / (1.0 + tl.exp(score)), _sigmoid(score)


@triton.jit
def _wins(unread, k, units: tl.constexpr, winners: tl.constexpr, wide_units: tl.constexpr):
    """Whether unit k is among those that left least unread; ties go to the lower index, and what is no number last."""
    others = tl.arange(0, wide_units)
    unread = tl.where((others < units) & (unread == unread), unread, float("inf"))
    mine = tl.sum(tl.where(others == k, unread, 0.0), 0)
    ahead = (unread < mine) | ((unread == mine) & (others < k))
    return tl.sum(ahead.to(tl.int32), 0) < winners


@triton.jit
def _lstm(p0, p1, p2, p3, gates, squashed, cells, cells_after, anew, active, s, there, size: tl.constexpr,
          keep: tl.constexpr, wide: tl.constexpr):  # fmt: skip
    """Return the candidate of an LSTM unit from its gates before they are squashed, and write its cell."""
    take, forget, new, show = _sigmoid(p0), _sigmoid(p1), _tanh(p2), _sigmoid(p3)
    before = _row(cells, s, there, wide)
    before = tl.where(anew, 0.0, before)
    cell = forget * before + take * new
    tanh = _tanh(cell)
    tl.store(cells_after + s, tl.where(active, cell, before), mask=there)
    if keep:
        tl.store(gates + s, take, mask=there)
        tl.store(gates + size + s, forget, mask=there)
        tl.store(gates + 2 * size + s, new, mask=there)
        tl.store(gates + 3 * size + s, show, mask=there)
        tl.store(squashed + s, tanh, mask=there)
    return show * tanh


@triton.jit
def _gru(p0, p1, p2, recalled, gates, news, before, s, there, size: tl.constexpr, keep: tl.constexpr):
    """Return the candidate of a GRU unit from its gates before they are squashed; `recalled` is W_hn h + b_hn."""
    reset, update = _sigmoid(p0), _sigmoid(p1)
    new = _tanh(p2 + reset * recalled)
    if keep:
        tl.store(gates + s, reset, mask=there)
        tl.store(gates + size + s, update, mask=there)
        tl.store(gates + 2 * size + s, recalled, mask=there)
        tl.store(news + s, new, mask=there)
    return new + update * (before - new)


@triton.jit
def _read(
    gates, queries, keys, values, attention, anew, k, stride, next_head, next_share, units: tl.constexpr,
    size: tl.constexpr, heads: tl.constexpr, key_size: tl.constexpr, scale: tl.constexpr, lstm: tl.constexpr,
    attends: tl.constexpr, keep: tl.constexpr, wide_units: tl.constexpr, wide_size: tl.constexpr,
    wide_keys: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Return what every unit left unread, and the input's part of unit k's gates, biases included.

    Pointers to: gates (G), the biases of unit k; queries of unit 0, `stride` apart; keys (H, D); values (G) of unit k,
    by head `next_head` apart; attention (2) of unit k, the null row's and the slot's, by head `next_share` apart.
    """
    s, mine = tl.arange(0, wide_size), tl.arange(0, wide_units) == k
    there = s < size
    in_0, in_1 = _row(gates, s, there, wide), _row(gates, size + s, there, wide)
    in_2 = _row(gates, 2 * size + s, there, wide)
    in_3 = in_2
    if lstm:
        in_3 = _row(gates, 3 * size + s, there, wide)
    unread = tl.zeros([wide_units], wide)
    for h in tl.static_range(heads):
        share = 1.0
        if attends:
            null, reads = _shares(queries, keys, h, anew, stride, units, key_size, wide_units, wide_keys, scale, wide)
            unread += null
            share = tl.sum(tl.where(mine, reads, 0.0), 0)
            if keep:
                tl.store(attention + h * next_share, tl.sum(tl.where(mine, null, 0.0), 0))
                tl.store(attention + h * next_share + 1, share)
        value = values + h * next_head
        in_0 += share * _row(value, s, there, wide)
        in_1 += share * _row(value, size + s, there, wide)
        in_2 += share * _row(value, 2 * size + s, there, wide)
        if lstm:
            in_3 += share * _row(value, 3 * size + s, there, wide)
    return unread, in_0, in_1, in_2, in_3


@triton.jit(do_not_specialize=["t", "steps"])
def attend_and_update(
    t, starts, keys, values, bias, bias_hn, products, states, cells, memos, attention, active, kept, steps, batch,
    scale: tl.constexpr, units: tl.constexpr, size: tl.constexpr, heads: tl.constexpr, key_size: tl.constexpr,
    winners: tl.constexpr, lstm: tl.constexpr, attends: tl.constexpr, speaks: tl.constexpr, has_starts: tl.constexpr,
    keep: tl.constexpr, wide_units: tl.constexpr, wide_size: tl.constexpr, wide_keys: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """From the state's products: attention, selection, the units' next cells and states before communication.

    Reads starts (T, B), keys (T, B, H, D), values (H, T, B, K, G), bias (K, G), bias_hn (K, S), products
    (T, K, B, G + H*D), states (T + 1, B, K, S), cells (T + 1, B, K, S). Writes gates into products, cells, memos
    (T, K, B, S), attention (T, H, B, K, 2), active (T, B, K), and kept: (T, B, K, S), the next state without
    communication.
    """
    b, k = tl.program_id(0), tl.program_id(1)
    gate_size: tl.constexpr = (4 if lstm else 3) * size
    row: tl.constexpr = gate_size + (heads * key_size if attends else 0)
    time = t.to(tl.int64)
    room = time if keep else time * 0
    anew = _starts_anew(starts, t, steps, batch, b, has_starts)
    s = tl.arange(0, wide_size)
    there = s < size
    place, whole = b * units + k, batch * units * size
    own = products + ((room * units + k) * batch + b) * row
    unread, in_0, in_1, in_2, in_3 = _read(
        bias + k * gate_size, products + (room * units * batch + b) * row + gate_size,
        keys + (time * batch + b) * (heads * key_size), values + (time * batch * units + place) * gate_size,
        attention + (room * heads * batch * units + place) * 2, anew, k, batch * row,
        (time * 0 + steps) * batch * units * gate_size, batch * units * 2, units, size, heads, key_size, scale, lstm,
        attends, keep, wide_units, wide_size, wide_keys, wide,
    )  # fmt: skip
    wins = True
    if attends:
        wins = _wins(unread, k, units, winners, wide_units)
        tl.store(active + time * batch * units + place, wins.to(tl.uint8))
    # of the state's part of the gates nothing is left where an episode starts
    of_0 = tl.where(anew, 0.0, _row(own, s, there, wide))
    of_1 = tl.where(anew, 0.0, _row(own, size + s, there, wide))
    of_2 = tl.where(anew, 0.0, _row(own, 2 * size + s, there, wide))
    before = tl.where(anew, 0.0, _row(states + time * whole + place * size, s, there, wide))
    memo = memos + ((room * units + k) * batch + b) * size
    if lstm:
        of_3 = tl.where(anew, 0.0, _row(own, 3 * size + s, there, wide))
        old = cells + room * whole + place * size
        new = old + (whole if keep else 0)
        candidate = _lstm(
            in_0 + of_0, in_1 + of_1, in_2 + of_2, in_3 + of_3, own, memo, old, new, anew, wins, s, there, size, keep,
            wide,
        )  # fmt: skip
    else:
        recalled = of_2 + _row(bias_hn, k * size + s, there, wide)
        candidate = _gru(in_0 + of_0, in_1 + of_1, in_2, recalled, own, memo, before, s, there, size, keep)
    if keep and attends and has_starts:  # what the keys' gradient multiplies with
        for h in tl.static_range(heads):
            d = tl.arange(0, wide_keys)
            tl.store(own + gate_size + h * key_size + d, d * 0.0, mask=(d < key_size) & anew)
    out = kept + room * whole if speaks else states + (time + 1) * whole
    tl.store(out + place * size + s, tl.where(wins, candidate, before), mask=there)


# ---------------------------------------------------------------- forward: units listen to each other


@triton.jit(do_not_specialize=["t"])
def listen(
    t, parts, listening, messages, batch, scale: tl.constexpr, units: tl.constexpr, heads: tl.constexpr,
    key_size: tl.constexpr, value_size: tl.constexpr, keep: tl.constexpr, wide_units: tl.constexpr,
    wide_keys: tl.constexpr, wide_values: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """softmax(Q K^T / sqrt(P)) V of what units show: parts (T, K, B, 2 C P + C M), queries, keys and values.

    Writes the weights, listening (T, C, B, K, K), and the messages (T, B, K, C*M).
    """
    b, c, k = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row: tl.constexpr = heads * (2 * key_size + value_size)
    room = t.to(tl.int64) if keep else t.to(tl.int64) * 0
    j, p, m = tl.arange(0, wide_units), tl.arange(0, wide_keys), tl.arange(0, wide_values)
    all_parts = parts + (room * units * batch + b) * row
    query = _row(all_parts + k * batch * row + c * key_size, p, p < key_size, wide)
    others = j[:, None] * (batch * row)
    is_key, is_value = (j < units)[:, None] & (p < key_size)[None, :], (j < units)[:, None] & (m < value_size)[None, :]
    key = _row(all_parts + (heads + c) * key_size, others + p[None, :], is_key, wide)
    value = _row(all_parts + 2 * heads * key_size + c * value_size, others + m[None, :], is_value, wide)
    scores = tl.where(j < units, tl.sum(query[None, :] * key, 1) * scale, float("-inf"))
    raised = tl.exp(scores - tl.max(scores, 0))
    weights = raised / tl.sum(raised, 0)
    if keep:
        tl.store(listening + (((room * heads + c) * batch + b) * units + k) * units + j, weights, mask=j < units)
    message = tl.sum(weights[:, None] * value, 0)
    out = messages + ((room * batch + b) * units + k) * (heads * value_size) + c * value_size
    tl.store(out + m, message, mask=m < value_size)


@triton.jit(do_not_specialize=["t"])
def take_up(
    t, said, kept, active, states, batch, units: tl.constexpr, size: tl.constexpr, bounded: tl.constexpr,
    keep: tl.constexpr, wide_size: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """The next state: active units add what was said to them, said (T, K, B, S), to what they kept (T, B, K, S)."""
    b, k = tl.program_id(0), tl.program_id(1)
    time = t.to(tl.int64)
    room = time if keep else time * 0
    s = tl.arange(0, wide_size)
    there = s < size
    place, whole = b * units + k, batch * units * size
    heard = said + ((room * units + k) * batch + b) * size
    message = _row(heard, s, there, wide)
    if bounded:
        message = _tanh(message)
        if keep:
            tl.store(heard + s, message, mask=there)
    before = _row(kept + room * whole + place * size, s, there, wide)
    wins = tl.load(active + time * batch * units + place) != 0
    tl.store(states + (time + 1) * whole + place * size + s, tl.where(wins, before + message, before), mask=there)


# ---------------------------------------------------------------- backward, last step first


@triton.jit
def _arriving(d_h, d_outputs, starts, t, steps, batch, b, place, s, there, units: tl.constexpr, size: tl.constexpr,
              has_starts: tl.constexpr, wide: tl.constexpr):  # fmt: skip
    """The gradient of the state after step t: from the next step, unless that started anew, and from the output."""
    later = _row(d_h + place * size, s, there, wide)
    later = tl.where(_starts_anew(starts, t + 1, steps, batch, b, has_starts), 0.0, later)
    return later + _row(d_outputs + t.to(tl.int64) * batch * units * size + place * size, s, there, wide)


@triton.jit(do_not_specialize=["t", "steps"])
def take_up_backward(
    t, starts, d_outputs, said, active, d_h, d_said, steps, batch, units: tl.constexpr, size: tl.constexpr,
    bounded: tl.constexpr, has_starts: tl.constexpr, wide_size: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Completes the gradient of the state after step t, d_h (B, K, S); writes that of what was said (T, B, K, S)."""
    b, k = tl.program_id(0), tl.program_id(1)
    time = t.to(tl.int64)
    s = tl.arange(0, wide_size)
    there = s < size
    place = b * units + k
    gradient = _arriving(d_h, d_outputs, starts, t, steps, batch, b, place, s, there, units, size, has_starts, wide)
    tl.store(d_h + place * size + s, gradient, mask=there)
    slope = tl.zeros([wide_size], wide) + 1.0
    if bounded:
        tanh = _row(said + ((time * units + k) * batch + b) * size, s, there, wide)
        slope = 1.0 - tanh * tanh
    wins = tl.load(active + time * batch * units + place) != 0
    out = d_said + time * batch * units * size + place * size
    tl.store(out + s, tl.where(wins, gradient * slope, 0.0), mask=there)


@triton.jit(do_not_specialize=["t"])
def listen_backward(
    t, parts, listening, messages, d_messages, d_parts, batch, scale: tl.constexpr, units: tl.constexpr,
    heads: tl.constexpr, key_size: tl.constexpr, value_size: tl.constexpr, wide_units: tl.constexpr,
    wide_keys: tl.constexpr, wide_values: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of unit k's query, key and value in head c, d_parts (T, B, K, 2 C P + C M).

    From that of the messages, d_messages (K, B, C*M): sum_j w_ij dw_ij of the softmax is message times its gradient.
    """
    b, c, k = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row: tl.constexpr = heads * (2 * key_size + value_size)
    width: tl.constexpr = heads * value_size
    time = t.to(tl.int64)
    j, p, m = tl.arange(0, wide_units), tl.arange(0, wide_keys), tl.arange(0, wide_values)
    is_unit = j < units
    is_key, is_value = is_unit[:, None] & (p < key_size)[None, :], is_unit[:, None] & (m < value_size)[None, :]
    of_head = c * value_size
    d_all = _row(d_messages + b * width + of_head, j[:, None] * (batch * width) + m[None, :], is_value, wide)
    said = _row(
        messages + (time * batch + b) * units * width + of_head, j[:, None] * width + m[None, :], is_value, wide
    )
    total = tl.sum(d_all * said, 1)  # (K,) by listener
    all_parts = parts + (time * units * batch + b) * row
    others = j[:, None] * (batch * row)
    query = _row(all_parts + c * key_size, others + p[None, :], is_key, wide)
    key = _row(all_parts + (heads + c) * key_size, others + p[None, :], is_key, wide)
    value = _row(all_parts + 2 * heads * key_size + of_head, others + m[None, :], is_value, wide)
    weights = listening + ((time * heads + c) * batch + b) * units * units
    mine = (j == k)[:, None]
    # as the one who listens
    heard = _row(weights + k * units, j, is_unit, wide)
    d_own = tl.sum(tl.where(mine, d_all, 0.0), 0)
    d_heard = heard * (tl.sum(d_own[None, :] * value, 1) - tl.sum(tl.where(j == k, total, 0.0), 0))
    d_query = tl.sum(d_heard[:, None] * key, 0) * scale
    # as the one who is listened to
    told = _row(weights + k, j * units, is_unit, wide)
    own_value = tl.sum(tl.where(mine, value, 0.0), 0)
    d_told = told * (tl.sum(d_all * own_value[None, :], 1) - total)
    d_key = tl.sum(d_told[:, None] * query, 0) * scale
    d_value = tl.sum(told[:, None] * d_all, 0)
    out = d_parts + ((time * batch + b) * units + k) * row
    tl.store(out + c * key_size + p, d_query, mask=p < key_size)
    tl.store(out + (heads + c) * key_size + p, d_key, mask=p < key_size)
    tl.store(out + 2 * heads * key_size + of_head + m, d_value, mask=m < value_size)


@triton.jit
def _lstm_backward(gates, squashed, cells, d_c, d_kept, anew, wins, s, there, size: tl.constexpr, wide: tl.constexpr):
    """Return the gates' gradients of an LSTM unit, and write that of the cell before the step."""
    take, forget = _row(gates, s, there, wide), _row(gates, size + s, there, wide)
    new, show = _row(gates, 2 * size + s, there, wide), _row(gates, 3 * size + s, there, wide)
    tanh = _row(squashed, s, there, wide)
    before = tl.where(anew, 0.0, _row(cells, s, there, wide))
    of_state = tl.where(wins, d_kept, 0.0)
    d_after = _row(d_c, s, there, wide)
    d_cell = tl.where(wins, d_after + of_state * show * (1.0 - tanh * tanh), 0.0)
    tl.debug_barrier()  # where several warps hold the same numbers, one stores: not before all have loaded
    tl.store(d_c + s, tl.where(anew, 0.0, tl.where(wins, d_cell * forget, d_after)), mask=there)
    d_take = d_cell * new * take * (1.0 - take)
    d_forget = d_cell * before * forget * (1.0 - forget)
    return d_take, d_forget, d_cell * take * (1.0 - new * new), of_state * tanh * show * (1.0 - show)


@triton.jit
def _gru_backward(gates, news, before, d_kept, wins, s, there, size: tl.constexpr, wide: tl.constexpr):
    """Return the gradients of a GRU unit's three gates, of W_hn h + b_hn, and of the state that it kept."""
    reset, update = _row(gates, s, there, wide), _row(gates, size + s, there, wide)
    recalled, new = _row(gates, 2 * size + s, there, wide), _row(news, s, there, wide)
    opened = tl.where(wins, d_kept * (1.0 - update), 0.0)
    d_new = opened * (1.0 - new * new)
    d_reset, d_update = d_new * recalled * reset * (1.0 - reset), opened * update * (before - new)
    return d_reset, d_update, d_new, d_new * reset, d_kept - opened


@triton.jit
def _read_backward(
    d_0, d_1, d_2, d_3, values, keys, attention, d_scores, d_queries, next_value, next_head, s, there,
    size: tl.constexpr, heads: tl.constexpr, key_size: tl.constexpr, scale: tl.constexpr, lstm: tl.constexpr,
    wide_keys: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a unit's scores and queries from those of its gates; heads lie apart as in `_read`."""
    d = tl.arange(0, wide_keys)
    for h in tl.static_range(heads):
        value = values + h * next_value
        product = d_0 * _row(value, s, there, wide) + d_1 * _row(value, size + s, there, wide)
        product += d_2 * _row(value, 2 * size + s, there, wide)
        if lstm:
            product += d_3 * _row(value, 3 * size + s, there, wide)
        share = tl.load(attention + h * next_head * 2 + 1).to(wide)
        d_score = share * (1.0 - share) * tl.sum(product, 0)
        tl.store(d_scores + h * next_head, d_score)
        key = _row(keys, h * key_size + d, d < key_size, wide)
        tl.store(d_queries + h * key_size + d, d_score * scale * key, mask=d < key_size)


@triton.jit(do_not_specialize=["t", "steps"])
def update_backward(
    t, starts, keys, values, products, states, cells, memos, attention, active, d_outputs, d_h, d_c, d_products,
    d_incoming, d_scores, steps, batch, scale: tl.constexpr, units: tl.constexpr, size: tl.constexpr,
    heads: tl.constexpr, key_size: tl.constexpr, lstm: tl.constexpr, attends: tl.constexpr, speaks: tl.constexpr,
    has_starts: tl.constexpr, wide_size: tl.constexpr, wide_keys: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """From the gradient of the state before communication, d_h (B, K, S), those of all that `attend_and_update` read.

    Without communication d_h has to be completed first, as in `take_up_backward`. Writes d_products
    (T, B, K, G + H*D), d_incoming (T, B, K, G) of GRU units, d_scores (T, H, B, K, 1), and into d_h and d_c (B, K, S)
    what reaches the state and the cell before the step past the products.
    """
    b, k = tl.program_id(0), tl.program_id(1)
    gate_size: tl.constexpr = (4 if lstm else 3) * size
    row: tl.constexpr = gate_size + (heads * key_size if attends else 0)
    time = t.to(tl.int64)
    anew = _starts_anew(starts, t, steps, batch, b, has_starts)
    s = tl.arange(0, wide_size)
    there = s < size
    place, whole = b * units + k, batch * units * size
    if speaks:
        arrived = _row(d_h + place * size, s, there, wide)
    else:
        arrived = _arriving(d_h, d_outputs, starts, t, steps, batch, b, place, s, there, units, size, has_starts, wide)
    wins = tl.load(active + time * batch * units + place) != 0
    gates = products + ((time * units + k) * batch + b) * row
    memo = memos + ((time * units + k) * batch + b) * size
    out = d_products + (time * batch * units + place) * row
    if lstm:
        old = cells + time * whole + place * size
        d_0, d_1, d_2, d_3 = _lstm_backward(
            gates, memo, old, d_c + place * size, arrived, anew, wins, s, there, size, wide
        )
        tl.store(out + 2 * size + s, d_2, mask=there)
        tl.store(out + 3 * size + s, d_3, mask=there)
        passed = tl.where(wins, 0.0, arrived)
    else:
        before = tl.where(anew, 0.0, _row(states + time * whole + place * size, s, there, wide))
        d_0, d_1, d_2, d_3, passed = _gru_backward(gates, memo, before, arrived, wins, s, there, size, wide)
        tl.store(out + 2 * size + s, d_3, mask=there)
        read = d_incoming + (time * batch * units + place) * gate_size
        tl.store(read + s, d_0, mask=there)
        tl.store(read + size + s, d_1, mask=there)
        tl.store(read + 2 * size + s, d_2, mask=there)
    tl.store(out + s, d_0, mask=there)
    tl.store(out + size + s, d_1, mask=there)
    tl.debug_barrier()
    tl.store(d_h + place * size + s, passed, mask=there)
    if attends:
        _read_backward(
            d_0, d_1, d_2, d_3, values + (time * batch * units + place) * gate_size,
            keys + (time * batch + b) * (heads * key_size), attention + (time * heads * batch * units + place) * 2,
            d_scores + time * heads * batch * units + place, out + gate_size,
            (time * 0 + steps) * batch * units * gate_size, batch * units, s, there, size, heads, key_size, scale, lstm,
            wide_keys, wide,
        )  # fmt: skip
