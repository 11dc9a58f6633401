"""Discs on a plane that collide elastically, followed from event to event: no time steps, so every time is exact."""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import numpy as np
from jaxtyping import Float

WALL = -1


@dataclass(frozen=True)
class Motion:
    """m runs of k discs between at most e events. Where there are fewer, times are infinite."""

    time: np.ndarray  # (m, e), in seconds
    one: np.ndarray  # (m, e), which disc
    other: np.ndarray  # (m, e), which disc it meets, or WALL
    position: np.ndarray  # (m, e + 1, k, 2), x and y at the start and at each event
    velocity: np.ndarray  # (m, e + 1, k, 2), from then on

    def at(self, times: Float[np.ndarray, "m f"]) -> Float[np.ndarray, "m f k 2"]:
        """Where the discs are at these times; between events they go straight on."""
        last = (self.time[:, None] <= times[..., None]).sum(-1)  # events so far, (m, f)
        began = np.concatenate([np.zeros((len(times), 1)), self.time], 1)
        row = np.arange(len(times))[:, None]
        return self.position[row, last] + self.velocity[row, last] * (times - began[row, last])[..., None, None]

    def part(self, rows: np.ndarray) -> Self:
        """These runs."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})


def join(motions: list[Motion]) -> Motion:
    """The runs of several motions, one after another."""
    return Motion(*(np.concatenate(parts) for parts in zip(*(vars(motion).values() for motion in motions))))


def follow(
    position: Float[np.ndarray, "m k 2"],
    velocity: Float[np.ndarray, "m k 2"],
    radius: Float[np.ndarray, "m k"],
    side: float,
    seconds: float,
    events: int,
) -> Motion:
    r"""Let discs run in a square from 0 to ``side`` until ``seconds``, or for at most so many events.

    A wall turns the velocity across it round. Two discs of masses m, as their areas, exchange along the line n between
    their middles

    .. math:: v_i \leftarrow v_i - \frac{2 m_j}{m_i + m_j} ((v_i - v_j) \cdot n)\, n

    so that momentum and energy are kept.
    """
    position, velocity = position.copy(), velocity.copy()
    m, k = radius.shape
    pairs = np.array(list(combinations(range(k), 2)))
    rows, now = np.arange(m), np.zeros(m)
    told = [(position.copy(), velocity.copy())]
    when, who = np.full((m, events), np.inf), np.zeros((m, events, 2), int)
    for event in range(events):
        until = np.concatenate([_walls(position, velocity, radius, side), _pairs(position, velocity, radius, pairs)], 1)
        number = until.argmin(1)
        step = until[rows, number]
        on = now + step < seconds
        if not on.any():
            break
        step[~on], now = 0, now + step
        position += velocity * step[:, None, None]
        wall, pair = rows[on & (number < 2 * k)], rows[on & (number >= 2 * k)]
        disc, axis = np.divmod(number[wall], 2)
        velocity[wall, disc, axis] *= -1
        one, other = pairs[number[pair] - 2 * k].T
        _collide(position, velocity, radius, pair, one, other)
        when[on, event] = now[on]
        who[wall, event, 0], who[wall, event, 1] = disc, WALL
        who[pair, event, 0], who[pair, event, 1] = one, other
        now[~on] = np.inf  # this run is over
        told.append((position.copy(), velocity.copy()))
    told += [told[-1]] * (events + 1 - len(told))
    positions, velocities = (np.stack(parts, 1) for parts in zip(*told))
    return Motion(when, who[..., 0], who[..., 1], positions, velocities)


def _walls(position: np.ndarray, velocity: np.ndarray, radius: np.ndarray, side: float) -> np.ndarray:
    """How long until each disc meets a wall on each axis, (m, 2k)."""
    edge = radius[..., None]
    ahead = np.where(velocity > 0, side - edge - position, position - edge)
    with np.errstate(divide="ignore", invalid="ignore"):
        until = np.where(velocity == 0, np.inf, ahead / abs(velocity))
    return np.maximum(until, 0).reshape(len(position), 2 * position.shape[1])


def _pairs(position: np.ndarray, velocity: np.ndarray, radius: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How long until each two discs meet, (m, pairs); infinite where they do not."""
    one, other = pairs.T
    apart, moving = position[:, one] - position[:, other], velocity[:, one] - velocity[:, other]
    gap = (apart**2).sum(-1) - (radius[:, one] + radius[:, other]) ** 2
    closing, speed = -(apart * moving).sum(-1), (moving**2).sum(-1)
    root = closing**2 - speed * gap
    meet = (closing > 0) & (root >= 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(meet, np.maximum(gap, 0) / (closing + np.sqrt(np.maximum(root, 0))), np.inf)


def _collide(
    position: np.ndarray, velocity: np.ndarray, radius: np.ndarray, run: np.ndarray, one: np.ndarray, other: np.ndarray
) -> None:
    """Change the velocities of the two discs that touch in each of these runs."""
    line = position[run, one] - position[run, other]
    line /= np.linalg.norm(line, axis=1, keepdims=True)
    closing = ((velocity[run, one] - velocity[run, other]) * line).sum(1)
    masses = radius[run, one] ** 2, radius[run, other] ** 2
    push = (2 * closing / sum(masses))[:, None] * line
    velocity[run, one] -= masses[1][:, None] * push
    velocity[run, other] += masses[0][:, None] * push
