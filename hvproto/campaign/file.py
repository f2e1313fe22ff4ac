"""Campaign files: TOML that says which scenarios there are.

``[[scenarios]]`` tables are products: each guest x plan x seed x relocation schedule is one scenario, numbered from 1
in the order of the file. docs/campaigns.md describes the keys.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hvproto.bundled import DEFAULT_HOST, find, folder
from hvproto.campaign.code import Code
from hvproto.campaign.fields import CampaignError, Fields
from hvproto.campaign.generated import Generated
from hvproto.campaign.scenario import AS_ALONE, Scenario, check_expectation
from hvproto.errors import BadInput
from hvproto.hypervisor.plan import Plan
from hvproto.images.image import Image
from hvproto.images.load import check_fits, load_image
from hvproto.testing.bare import RAM
from hvproto.testing.relocate import parse_schedule

LIMIT = 4_000_000
"""Cycles of a guest, if the file says nothing: what the longest of the bundled hostile ones takes, five times."""
MINIMISED = 10
"""Failures that are made small, if the file says nothing."""


@dataclass(frozen=True, slots=True)
class Group:
    """One ``[[scenarios]]`` table: lists whose product its scenarios are."""

    guests: tuple[tuple[str, Image | tuple[int, int, int]], ...]
    """Name and image, or bits, ring and size of what a seed makes."""
    plans: tuple[str, ...]
    seeds: tuple[int, ...]
    relocations: tuple[str, ...]
    limit: int
    expect: str
    allow: tuple[str, ...]
    handlers: tuple[Code, ...]
    policy: Code | None

    def __len__(self) -> int:
        return len(self.guests) * len(self.plans) * len(self.seeds) * len(self.relocations)


@dataclass(frozen=True, slots=True)
class Campaign:
    name: str
    host: Image
    groups: tuple[Group, ...]
    minimise: int
    """How many failures, the first ones, are made small."""

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def scenarios(self) -> Iterator[Scenario]:
        """All of them, by number from 1 on."""
        number = 0
        for group in self.groups:
            every = product(group.guests, group.plans, group.seeds, group.relocations)
            for (name, guest), plan, seed, relocation in every:
                number += 1
                subject = Generated.of_seed(*guest, seed) if isinstance(guest, tuple) else guest
                yield Scenario(
                    number, name, subject, self.host, plan, seed, relocation, group.limit, group.expect, group.allow,
                    group.handlers, group.policy,
                )  # fmt: skip

    @property
    def digest(self) -> str:
        """Of everything that decides what the results are, but for this package itself."""
        hashed = hashlib.sha256(_bytes_of(self.host))
        for group in self.groups:
            for name, guest in group.guests:
                hashed.update(name.encode() + (repr(guest).encode() if isinstance(guest, tuple) else _bytes_of(guest)))
            code = [*group.handlers, *([group.policy] if group.policy else [])]
            hashed.update(
                repr(
                    (group.plans, group.seeds, group.relocations, group.limit, group.expect, group.allow,
                     [(each.name, each.text) for each in code])
                ).encode()
            )  # fmt: skip
        return hashed.hexdigest()


def find_campaign(name: str) -> Path:
    """The file of that name, or the bundled campaign: ``hostile``. Raises CampaignError."""
    path = Path(name)
    if path.is_file():
        return path
    bundled = folder() / name / "campaign.toml"
    if path.name == name and bundled.is_file():
        return bundled
    there = ", ".join(sorted(each.parent.name for each in folder().glob("*/campaign.toml")))
    raise CampaignError(f"{name}: no such file, and no bundled campaign is called so; there are {there}")


def read_campaign(path: Path) -> Campaign:
    """What a file says. Raises CampaignError with the key and what was expected, ImageError for a bad guest."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CampaignError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise CampaignError(f"{path}: no TOML: {error}") from None
    fields = Fields(table, str(path))
    name = fields.text("name", path.parent.name if path.stem == "campaign" else path.stem)
    host = _kernel(fields.text("host", DEFAULT_HOST), path.parent)
    limit = fields.number("limit", LIMIT)
    minimise = fields.number("minimise", MINIMISED, least=0)
    groups = tuple(_group(group, path.parent, limit) for group in fields.tables("scenarios"))
    fields.finish()
    # Its source lines are nine tenths of it, and of no use to a worker.
    return Campaign(name, replace(host, lines={}), groups, minimise)


def _group(fields: Fields, place: Path, limit: int) -> Group:
    guests = _guests(fields, place)
    plans = fields.texts("plans", ["mirrored"])
    relocations = fields.texts("relocations", ["never"])
    handlers = fields.texts("handlers", []) if "handlers" in fields else []
    fields.know("handlers", "policy", "allow", "exclude")
    group = Group(
        guests, tuple(plans), tuple(fields.numbers("seeds", [1])), tuple(relocations),
        fields.number("limit", limit), fields.text("expect", AS_ALONE),
        tuple(fields.texts("allow")) if "allow" in fields else (),
        tuple(_checked(fields, "handlers", lambda: [Code.read(each, place) for each in handlers])),
        _checked(fields, "policy", lambda: Code.read(fields.text("policy"), place)) if "policy" in fields else None,
    )  # fmt: skip
    fields.finish()
    _checked(fields, "expect", lambda: check_expectation(group.expect))
    for text in relocations:
        _checked(fields, "relocations", lambda text=text: parse_schedule(text))
    for text in plans:
        plan = _checked(fields, "plans", lambda text=text: _runnable(text))
        if plan.guest_at_ring0 or plan.guest_in_process:
            if relocations != ["never"] or "policy" in fields:
                fields.refuse(f"plan {text!r} has no region that could move: leave relocations and policy out")
            if handlers:
                fields.refuse(f"plan {text!r} has no exits that handlers could be asked about: leave handlers out")
    if len(group.seeds) > 1:
        for name, guest in guests:
            for text in relocations:
                if not isinstance(guest, tuple) and not text.startswith("random"):
                    fields.refuse(
                        f"seeds: none makes a difference to {name} with the relocations {text!r}; give them a table "
                        'of their own, or "random N"'
                    )
    return group


def _guests(fields: Fields, place: Path) -> tuple[tuple[str, Image | tuple[int, int, int]], ...]:
    if ("guests" in fields) == ("fuzz" in fields):
        fields.refuse("one of the keys guests (a list of files and patterns) and fuzz (a table) was expected")
    fields.know("guests", "fuzz")
    if "fuzz" in fields:
        fuzz = fields.table("fuzz")
        bits, ring, size = fuzz.number("bits", 32), fuzz.number("ring", 0, least=0), fuzz.number("bytes")
        fuzz.finish()
        if bits not in (32, 64):
            fuzz.refuse(f"bits = {bits}: 32 or 64 was expected")
        if ring not in (0, 3):
            fuzz.refuse(f"ring = {ring}: 0 or 3 was expected")
        if size > 4096:
            fuzz.refuse(f"bytes = {size}: at most 4096 was expected")
        return ((f"fuzz {bits}-bit ring {ring}", (bits, ring, size)),)
    left_out = fields.texts("exclude", []) if "exclude" in fields else []
    found: dict[str, Image] = {}
    for text in fields.texts("guests"):
        if any(mark in text for mark in "*?["):
            paths = sorted(path for path in place.glob(text) if path.is_file() and not any(map(path.match, left_out)))
            if not paths:
                fields.refuse(f"guests: nothing in {place} is called {text!r}")
            for path in paths:
                found[path.relative_to(place).as_posix()] = load_image(path)
        else:
            found[text] = _kernel(text, place)
    for name, image in found.items():
        _checked(fields, name, lambda image=image: check_fits(image, RAM))
    return tuple(found.items())


def _kernel(name: str, place: Path) -> Image:
    """The image in a file beside the campaign's, or of a bundled kernel."""
    path = place / name
    kernel = None if path.is_file() else find(name)
    return load_image(path if kernel is None else kernel.path)


def _runnable(text: str) -> Plan:
    plan = Plan.parse(text)
    plan.check_runnable()
    return plan


def _checked(fields: Fields, key: str, read: Any) -> Any:
    """What ``read`` gives. Raises CampaignError, with the key, if it raises BadInput."""
    try:
        return read()
    except BadInput as error:
        fields.refuse(f"{key}: {error}")


def _bytes_of(image: Image) -> bytes:
    parts = [repr((image.kind, image.entry)).encode(), image.disk]
    for segment in image.segments:
        parts += [repr((segment.address, segment.size)).encode(), segment.data]
    return hashlib.sha256(b"|".join(parts)).digest()
