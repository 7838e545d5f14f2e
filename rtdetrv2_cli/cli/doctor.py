"""`rtdetrv2 doctor`: whether this machine has what runs need. Imports late."""

from typer import Exit

from rtdetrv2_cli.cli import console
from rtdetrv2_cli.cli import options as opt

_SIGNS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


def doctor(
    verbose: opt.Verbose = False,
    json: opt.PrintJson = False,
) -> None:
    """Look at environment, devices, codecs, display and weights, and try it all.

    rtdetrv2 doctor : what is there, what is not, and what to do about it

    rtdetrv2 doctor --json : the same, to put into a bug report

    It ends with 0 if nothing is wrong, else with the exit code of a run that the problem stops.
    """
    from rtdetrv2_cli.cli import checks

    console.set_up(verbose=verbose)
    findings = []
    for finding in checks.examine():
        findings.append(finding)
        if not json:
            rows = [(f"{_SIGNS[finding.state]:<7}", f"{finding.subject:<17}", finding.message)]
            rows += [("       ", f"{'':<17}", f"-> {finding.remedy}")] if finding.remedy else []
            console.print_rows(rows)
    problems = [finding for finding in findings if finding.state == "problem"]
    if json:
        console.print_data({**checks.content(findings), "problems": len(problems)})
    elif not problems:
        console.print_text("nothing is wrong")
    if problems:
        raise Exit(problems[0].code)
