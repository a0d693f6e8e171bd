"""Creation of samples from a table and a FASTA file: validation, preview, and result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aspencli.commands.item_report import item_report
from aspencli.commands.samples_editing import OUTCOME_COLUMNS, outcome_row
from aspencli.context import AppContext
from aspencli.errors import BadInputError, ConflictError
from aspencli.output.rendering import Column, Row
from aspencli.output.text import counted
from aspencli.services.decoding import Fault
from aspencli.services.new_samples import Sequences, Wanted
from aspencli.services.orgs import Scope
from aspencli.services.places import Gazetteer
from aspencli.services.sample_creation import create_samples, taken_names
from aspencli.services.samples_asked import place_of

_SHOWN = 200  # problems shown at most
_DEFAULT_PATHOGEN = "SC2"
_PREVIEW = (Column("line", "Line", right=True, whole=True), *OUTCOME_COLUMNS[1:-1])


@dataclass
class Batch:
    """A batch of samples to create.

    Attributes:
        context: Application context.
        scope: Group and pathogen.
        path: FASTA file; it is read twice.
        wanted: Samples, without their sequences.
        places: Known locations.
    """

    context: AppContext
    scope: Scope
    path: Path
    wanted: list[Wanted]
    places: Gazetteer
    _sequences: Sequences = field(init=False)

    def __post_init__(self) -> None:
        self._sequences = Sequences(self.path, self.wanted)

    def check(self, faults: list[Fault]) -> None:
        """Check every sequence.

        Args:
            faults: Problems that are known already.

        Raises:
            BadInputError: If there is any problem; all of them are listed.
        """
        foreign = self._sequences.check(faults.append)
        _refuse(self.context, faults, foreign)

    def create(self, *, skip_existing: bool, dry_run: bool) -> None:
        """Ask for confirmation, create the samples, and report the outcome of each.

        Raises:
            ConflictError: If the group has such samples and they are not to be skipped, or if its
                other samples have the public identifiers.
        """
        out = self.context.out
        existing, clashing = self._taken()
        if clashing or (existing and not skip_existing):
            raise _taken(existing, clashing)
        left_out = {one.private for one in existing}
        new = [one for one in self.wanted if one.private not in left_out]
        same = [self._row(one, "exists already") for one in existing]
        if dry_run or not new:
            rows = [self._row(one, "would be created") for one in new]
            return out.rows(OUTCOME_COLUMNS, rows + same, empty="nothing to create")
        out.preview(_PREVIEW, [{"line": one.line or None, **self._row(one, "")} for one in new])
        self.context.authorise(f"create {counted(len(new), 'sample')} of {self.scope}")
        self._send(new, same)
        return out.done(f"{counted(len(new), 'sample')} created, {len(same):,} there already.")

    def _send(self, new: list[Wanted], same: list[Row]) -> None:
        out, samples = self.context.out, self.context.api().samples
        self._name_organism(new)
        with (
            item_report(out, OUTCOME_COLUMNS, len(new), "samples were created") as report,
            out.progress("Creating samples", len(new)) as tick,
        ):
            for some in create_samples(samples, self.scope, self._sequences.samples(new)):
                report += [outcome_row(sample, "created") for sample in some]
                tick(len(report))
            report.extend(same)

    def _taken(self) -> tuple[list[Wanted], list[Wanted]]:
        """Return samples the group already has, and new ones with a public identifier in use."""
        private, public = taken_names(self.context.api(), self.scope)
        existing = [one for one in self.wanted if one.private in private]
        clashing = [
            one
            for one in self.wanted
            if one.private not in private and one.fields.get("public_identifier") in public
        ]
        return existing, clashing

    def _name_organism(self, new: Sequence[Wanted]) -> None:
        """Set the organism, because the service assumes SARS-CoV-2 where it is missing."""
        slug = self.scope.slug
        if slug == _DEFAULT_PATHOGEN:
            return
        name = next((p["name"] for p in self.context.api().pathogens() if p["slug"] == slug), None)
        for one in new:
            if name is not None:
                one.fields.setdefault("organism", name)

    def _row(self, one: Wanted, outcome: str) -> Row:
        known = {**one.fields, **one.genome}
        place = self.places.find(str(one.fields["location_id"]))
        return {
            **{column.key: known.get(column.key) for column in OUTCOME_COLUMNS},
            "location": place_of(place),
            "outcome": outcome,
        }


def _taken(existing: Sequence[Wanted], clashing: Sequence[Wanted]) -> ConflictError:
    told = [(one.line, f"{one.private} exists already") for one in existing]
    told += [
        (one.line, f"another sample has {one.fields['public_identifier']}") for one in clashing
    ]
    details = [f"line {line}: {words}" if line else words for line, words in sorted(told)]
    return ConflictError(
        f"{counted(len(told), 'sample')} cannot be created: the group has such identifiers already",
        details=details[:_SHOWN],
        hint="Give them other public identifiers, or none: the service makes one up."
        if clashing
        else "Give others new identifiers; or go on without them: --skip-existing.",
    )


def _refuse(context: AppContext, faults: list[Fault], foreign: list[str]) -> None:
    """List all problems and raise an error, if there are any."""
    told = [_words(fault) for fault in sorted(faults, key=lambda fault: fault.line)]
    told += [f"the sequence {name!r} is of no sample" for name in foreign]
    for line in told[:_SHOWN]:
        context.out.info(line)
    if len(told) > _SHOWN:
        context.out.info(f"and {len(told) - _SHOWN:,} more")
    if told:
        raise BadInputError(
            f"{counted(len(told), 'problem')}; nothing was created",
            hint="Mend what is named above, and run the command again.",
        )


def _words(fault: Fault) -> str:
    line = f"line {fault.line}: " if fault.line else ""
    return line + (f"{fault.column}: " if fault.column else "") + fault.reason
