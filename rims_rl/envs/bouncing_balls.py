"""Balls that bounce in a box without friction: the physics, and pictures of it.

The worlds are those of Sutskever et al. (2009) with masses, as in relational neural expectation maximization (van
Steenkiste et al. 2018), from where the RIM paper took them (section 4.2). Time runs from event to event: between two
collisions balls move in straight lines, so the next collision is the root of a quadratic, and nothing can pass through
anything or get stuck. Many worlds are computed at once.

Axes: W worlds, N balls, T frames, F pictures, H rows, C columns. Lengths are in heights of the box, x to the right and
y down from its upper left corner, time in frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rims_rl.errors import ConfigError, UnknownNameError

Array = NDArray[np.float64]
Picture = NDArray[np.float32]

_LEAST_APPROACH = 1e-12  # slower than this a pair slides along each other and does not collide
_PLACINGS, _REDRAWS = 100, 20  # tries per ball, and per world


class Balls(NamedTuple):
    """The state of W worlds of up to N balls each."""

    positions: Array
    """Centres (W, N, 2)."""
    velocities: Array
    """Lengths per frame (W, N, 2)."""
    radii: Array
    """(W, N); 0 where a world has no such ball."""
    masses: Array
    """(W, N); infinite for a ball that nothing moves."""


@dataclass(frozen=True)
class Scene:
    """What worlds look like, before anything is drawn by chance."""

    counts: tuple[int, ...] = (4,)
    """Numbers of moving balls, equally likely."""
    radii: tuple[float, float] = (0.07, 0.12)
    """Smallest and largest radius; a ball's mass is its area over that of the mean radius."""
    speeds: tuple[float, float] = (0.02, 0.05)
    """Lowest and highest speed at the start, lengths per frame."""
    fixed_centre: bool = False
    """Whether one more ball sits in the middle, which nothing moves."""
    curtain: float = 0.0
    """Side of a square, somewhere in the box, behind which balls are not seen and which itself is not seen; 0: none."""
    view: float = 1.0
    """How much of the box, around its centre, is on the pictures."""
    width: float = 1.0
    """Width of the box; its height is 1."""

    def __post_init__(self) -> None:
        """Check every setting; raises ConfigError in one line."""
        if not self.counts or min(self.counts) < 1:
            raise ConfigError(f"counts must be numbers of balls of at least 1, got {self.counts}")
        for name, (low, high) in (("radii", self.radii), ("speeds", self.speeds)):
            if not 0 < low <= high < float("inf"):
                raise ConfigError(f"{name} must be positive, the smaller first, got {(low, high)}")
        if 2 * self.radii[1] >= min(1.0, self.width):
            raise ConfigError(f"a ball of radius {self.radii[1]} does not fit into a box of {self.width} x 1")
        if not 0 <= self.curtain <= min(1.0, self.width):
            raise ConfigError(f"curtain must be from 0 to {min(1.0, self.width)}, got {self.curtain}")
        if not 0 < self.view <= 1:
            raise ConfigError(f"view must be above 0 and at most 1, got {self.view}")

    @property
    def most(self) -> int:
        """Most balls in a world (N)."""
        return max(self.counts) + int(self.fixed_centre)


SCENES: dict[str, Scene] = {
    "4": Scene(),
    "678": Scene(counts=(6, 7, 8)),
    "curtain": Scene(counts=(3,), curtain=0.4),
    "crops": Scene(counts=(3,), fixed_centre=True, view=0.75),
} | {f"crops-{n}": Scene(counts=(n,), fixed_centre=True, view=0.75) for n in range(1, 7)}
"""The paper's worlds: 4 balls, 6 to 8, 3 behind a curtain (4.2, D.4), and crops, 48 of 64 pixels around a fixed ball
between 3 others, or 1 to 6 (D.5)."""


def scene(name: str) -> Scene:
    """Return a scene of `SCENES`; UnknownNameError for another name."""
    if name not in SCENES:
        raise UnknownNameError("scene of bouncing balls", name, SCENES)
    return SCENES[name]


# ---------------------------------------------------------------------- drawing worlds by chance


def sample_balls(of: Scene, worlds: int, generator: np.random.Generator) -> Balls:
    """Draw W worlds in which no two balls overlap.

    Raises:
        ConfigError: when the scene's balls are too many or too large for its box.
    """
    radii, positions = np.zeros((worlds, of.most)), np.zeros((worlds, of.most, 2))
    missing = np.arange(worlds)
    for _ in range(_REDRAWS):
        radii[missing] = _draw_radii(of, len(missing), generator)
        positions[missing], placed = _place(of, radii[missing], generator)
        missing = missing[~placed]
        if not len(missing):
            break
    else:
        raise ConfigError(f"{max(of.counts)} balls of radius {of.radii[0]} to {of.radii[1]} do not fit into the box")
    masses = (2 * radii / sum(of.radii)) ** 2
    velocities = _draw_velocities(of, radii, generator)
    if of.fixed_centre:
        masses[:, 0], velocities[:, 0] = np.inf, 0.0
    return Balls(positions, velocities, radii, masses)


def _draw_radii(of: Scene, worlds: int, generator: np.random.Generator) -> Array:
    """Return radii (W, N), 0 beyond each world's number of balls."""
    count = generator.choice(of.counts, size=worlds) + int(of.fixed_centre)
    radii = generator.uniform(*of.radii, size=(worlds, of.most))
    return np.where(np.arange(of.most) < count[:, None], radii, 0.0)


def _draw_velocities(of: Scene, radii: Array, generator: np.random.Generator) -> Array:
    """Return velocities (W, N, 2), 0 where there is no ball."""
    angle, speed = generator.uniform(0, 2 * np.pi, radii.shape), generator.uniform(*of.speeds, radii.shape)
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    velocities: Array = np.where(radii > 0, speed, 0.0)[..., None] * directions
    return velocities


def _place(of: Scene, radii: Array, generator: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """Put ball after ball where none lies yet: positions (W, N, 2), and which worlds worked out (W,)."""
    box = np.array([of.width, 1.0])
    positions = np.zeros((*radii.shape, 2))
    positions[...] = box / 2
    placed = np.ones(len(radii), bool)
    for ball in range(int(of.fixed_centre), radii.shape[1]):
        missing = np.flatnonzero(placed & (radii[:, ball] > 0))
        for _ in range(_PLACINGS):
            radius = radii[missing, ball, None]
            positions[missing, ball] = radius + generator.random((len(missing), 2)) * (box - 2 * radius)
            missing = missing[_overlaps(positions[missing], radii[missing], ball)]
            if not len(missing):
                break
        placed[missing] = False
    return positions, placed


def _overlaps(positions: Array, radii: Array, ball: int) -> NDArray[np.bool_]:
    """Return for each world whether a ball lies on one of those before it (W,)."""
    apart = positions[:, :ball] - positions[:, ball, None]
    reach = np.where(radii[:, :ball] > 0, radii[:, :ball] + radii[:, ball, None], 0.0)
    lies_on_one: NDArray[np.bool_] = ((apart**2).sum(-1) < reach**2).any(axis=1)
    return lies_on_one


def sample_curtains(of: Scene, worlds: int, generator: np.random.Generator) -> Array:
    """Draw a curtain per world: left, top, right and bottom edge (W, 4); of no size where the scene has none."""
    corner = generator.random((worlds, 2)) * (np.array([of.width, 1.0]) - of.curtain)
    return np.concatenate([corner, corner + of.curtain], axis=1)


# ---------------------------------------------------------------------- physics


def simulate(balls: Balls, frames: int, width: float = 1.0) -> Array:
    """Return the centres of all balls over T frames, (W, T, N, 2), of which the first is the given state."""
    positions = [balls.positions]
    for _ in range(frames - 1):
        balls = advance(balls, 1.0, width)
        positions.append(balls.positions)
    return np.stack(positions, axis=1)


def advance(balls: Balls, time: float, width: float = 1.0) -> Balls:
    """Return the worlds some time later; every collision in between is elastic and happens at its exact moment.

    Raises:
        ConfigError: for a time that is negative or not finite.
    """
    if not 0 <= time < float("inf"):
        raise ConfigError(f"time must be at least 0 and finite, got {time}")
    positions, velocities = balls.positions.copy(), balls.velocities.copy()
    left = np.full(len(positions), float(time))
    going = np.arange(len(positions))  # the worlds whose time is not used up
    while len(going):
        now = Balls(positions[going], velocities[going], balls.radii[going], balls.masses[going])
        events = _event_times(now, width)
        event = events.argmin(axis=1)
        step = np.minimum(np.take_along_axis(events, event[:, None], axis=1)[:, 0], left[going])
        positions[going] = _moved(now, step, width)
        left[going] -= step
        collides = left[going] > 0
        going = going[collides]
        _collide(positions, velocities, balls, going, event[collides])
    return balls._replace(positions=positions, velocities=velocities)


def _moved(balls: Balls, step: Array, width: float) -> Array:
    """Return the positions a step (W,) later; the clip takes away the last bit's rounding at a wall."""
    radius = balls.radii[..., None]
    moved: Array = balls.positions + step[:, None, None] * balls.velocities
    np.clip(moved, radius, np.array([width, 1.0]) - radius, out=moved)
    return moved


def _event_times(balls: Balls, width: float) -> Array:
    """Return the time until each ball reaches each wall, and each pair each other, if all went on, (W, 2 N + P)."""
    walls = _wall_times(balls, width)
    return np.concatenate([walls.reshape(len(walls), -1), _pair_times(balls)], axis=1)


def _wall_times(balls: Balls, width: float) -> Array:
    """Return the time until each ball meets the wall that it moves towards along each axis, (W, N, 2)."""
    radius = balls.radii[..., None]
    wall = np.where(balls.velocities > 0, np.array([width, 1.0]) - radius, radius)
    times = np.full_like(balls.velocities, np.inf)
    np.divide(wall - balls.positions, balls.velocities, out=times, where=balls.velocities != 0)
    return np.maximum(times, 0.0, out=times)


def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first and second members of all P pairs of balls, each (P,)."""
    first, second = np.triu_indices(count, k=1)
    return first, second


def _pair_times(balls: Balls) -> Array:
    """Return the time until each pair touches, infinite for those that never do, (W, P).

    With x the way from the first to the second centre, v its change and R the sum of the radii, |x + v t| = R is
    v^2 t^2 + 2 (x v) t + x^2 - R^2 = 0, whose smaller root counts where x v < 0: where the two approach.
    """
    first, second = _pairs(balls.radii.shape[1])
    x = balls.positions[:, second] - balls.positions[:, first]
    v = balls.velocities[:, second] - balls.velocities[:, first]
    speed, approach = (v**2).sum(-1), (x * v).sum(-1)
    gap = (x**2).sum(-1) - (balls.radii[:, second] + balls.radii[:, first]) ** 2
    root = approach**2 - speed * gap
    meets = (approach < -_LEAST_APPROACH) & (root > 0) & (balls.radii[:, first] > 0) & (balls.radii[:, second] > 0)
    times: Array = np.full_like(gap, np.inf)
    np.divide(gap, -approach + np.sqrt(np.maximum(root, 0.0)), out=times, where=meets)  # keeps digits for small gaps
    np.maximum(times, 0.0, out=times)
    return times


def _collide(
    positions: Array, velocities: Array, balls: Balls, worlds: NDArray[np.intp], event: NDArray[np.intp]
) -> None:
    """Change the velocities in some worlds (V,) by one event each, a column of `_event_times`, in place."""
    count = balls.radii.shape[1]
    at_wall = event < 2 * count
    ball, axis = np.divmod(event[at_wall], 2)
    velocities[worlds[at_wall], ball, axis] *= -1.0
    first, second = (side[event[~at_wall] - 2 * count] for side in _pairs(count))
    world = worlds[~at_wall]
    normal = positions[world, second] - positions[world, first]
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    closing = ((velocities[world, first] - velocities[world, second]) * normal).sum(-1)
    light_first, light_second = 1.0 / balls.masses[world, first], 1.0 / balls.masses[world, second]
    impulse = (2.0 * closing / (light_first + light_second))[:, None] * normal
    velocities[world, first] -= light_first[:, None] * impulse
    velocities[world, second] += light_second[:, None] * impulse


# ---------------------------------------------------------------------- pictures


class Window(NamedTuple):
    """The part of the box that a picture shows, and its size in pixels."""

    left: float
    """Left edge in the box."""
    top: float
    """Upper edge in the box."""
    scale: float
    """Pixels per length."""
    height: int
    """Rows (H)."""
    width: int
    """Columns (C)."""


def window(of: Scene, height: int) -> Window:
    """Return the scene's view on pictures of so many rows; their width follows from the box."""
    return Window((1 - of.view) / 2 * of.width, (1 - of.view) / 2, height / of.view, height, round(height * of.width))


def render(positions: Array, radii: Array, on: Window) -> Picture:
    """Draw white balls on black, their edges smooth: a pixel is as bright as a ball's edge is away from its centre.

    Args:
        positions: centres (F, N, 2).
        radii: (F, N); 0 for no ball.
        on: what is shown, how large.

    Returns:
        Pictures (F, H, C) in [0, 1].
    """
    reach = int(np.ceil(radii.max(initial=0.0) * on.scale + 0.5))
    rows, columns = on.height + 2 * reach, on.width + 2 * reach
    padded = np.zeros((len(positions), rows, columns), np.float32)
    flat, first = padded.reshape(-1), np.arange(len(positions))[:, None, None] * (rows * columns)
    centres = (positions - (on.left, on.top)) * on.scale + reach  # (F, N, 2), x and y in padded pixels
    for ball in range(radii.shape[1]):
        x, dx = _span(centres[:, ball, 0], reach, on.width)
        y, dy = _span(centres[:, ball, 1], reach, on.height)
        places = first + y[:, :, None] * columns + x[:, None, :]
        covered = _coverage(dx, dy, (radii[:, ball] * on.scale).astype(np.float32))
        flat[places] = np.maximum(flat[places], covered)
    return padded[:, reach : reach + on.height, reach : reach + on.width]


def _span(centre: Array, reach: int, size: int) -> tuple[NDArray[np.int64], Picture]:
    """Return the 2 reach + 1 pixels around a centre along one axis and how far their middles are from it, each (F, P).

    Where the centre is beyond the picture, the pixels stay within the margin; their distances are true all the same.
    """
    corner = np.clip(np.floor(centre).astype(np.int64) - reach, 0, size - 1)
    pixels = corner[:, None] + np.arange(2 * reach + 1)
    return pixels, (pixels + 0.5 - centre[:, None]).astype(np.float32)


def _coverage(dx: Picture, dy: Picture, radius: Picture) -> Picture:
    """Return how much of each pixel (F, P rows, P columns) a disc of a radius (F,) covers, all lengths in pixels."""
    distance = np.sqrt((dx**2)[:, None, :] + (dy**2)[:, :, None])
    radius = radius[:, None, None]
    covered: Picture = np.clip(radius + np.float32(0.5) - distance, 0, 1) * (radius > 0)
    return covered


def hide(pictures: Picture, curtains: Array, on: Window) -> Picture:
    """Blacken what lies behind curtains.

    Args:
        pictures: (F, H, C).
        curtains: left, top, right and bottom edge per picture (F, 4); a pixel is hidden when its middle lies between.
        on: what is shown, how large.
    """
    x = (np.arange(on.width) + 0.5) / on.scale + on.left
    y = (np.arange(on.height) + 0.5) / on.scale + on.top
    left, top, right, bottom = curtains.T[..., None]
    columns, rows = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return np.where(rows[:, :, None] & columns[:, None, :], np.float32(0), pictures)
