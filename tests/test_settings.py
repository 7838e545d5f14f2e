"""What files and variables may say of options, and how they are told that they are wrong."""

from pathlib import Path

import pytest

from rtdetrv2_cli import settings
from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.settings import Option

FLAG = Option(kind="flag")
CONF = Option(kind="number", low=0, high=1)
STYLE = Option(kind="text", choices=("box", "corner"))


def even(text: str) -> int:
    if int(text) % 2:
        raise UsageError(f"{text!r} is odd")
    return int(text)


DETECT = {
    "conf": CONF,
    "style": STYLE,
    "quiet": FLAG,
    "save-csv": FLAG,
    "audio": Option(kind="flag", off="no-audio"),
    "max-det": Option(kind="whole", low=1),
    "classes": Option(kind="text", meaning="LIST"),
    "include": Option(kind="texts", meaning="PATTERN"),
    "class-conf": Option(kind="texts", meaning="CLASS=0..1"),
    "start": Option(kind="text", meaning="TIME"),
    "imgsz": Option(kind="text", meaning="N|HxW"),
    "batch": Option(kind="text", meaning="auto|N", check=even),
    "on-detect": Option(kind="text"),
    "output": Option(kind="text"),
}
COMMANDS = {
    "detect": DETECT,
    "train": {"quiet": FLAG, "batch": Option(kind="whole", low=1), "output": Option(kind="text")},
    "models pull": {"quiet": FLAG, "offline": FLAG},
    "models list": {"json": FLAG},
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads a file of this content in the current folder."""
    monkeypatch.chdir(tmp_path)

    def read(content: str, *, is_trusted: bool = True):
        Path("rtdetrv2.toml").write_text(content, encoding="utf-8")
        return settings.read_file(Path("rtdetrv2.toml"), COMMANDS, is_trusted=is_trusted)

    return read


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("conf = 0.4", "conf", 0.4),
        ("conf = 1", "conf", 1),
        ("save-csv = true", "save-csv", True),
        ("save_csv = true", "save-csv", True),
        ("audio = false", "audio", False),
        ("max-det = 7", "max-det", 7),
        ('style = "corner"', "style", "corner"),
        ('classes = "person,7"', "classes", "person,7"),
        ('classes = ["person", 7]', "classes", "person,7"),
        ('include = ["*.jpg", "a b"]', "include", ["*.jpg", "a b"]),
        ('include = "*.jpg"', "include", ["*.jpg"]),
        ('class-conf = ["person=0.6"]', "class-conf", ["person=0.6"]),
        ("class-conf = {person = 0.6, car = 0.3}", "class-conf", ["person=0.6", "car=0.3"]),
        ("start = 00:01:30", "start", "00:01:30"),
        ("start = 90", "start", "90"),
        ("imgsz = 320", "imgsz", "320"),
        ("batch = 4", "batch", "4"),
    ],
)
def test_a_value_becomes_what_the_option_takes(read, line, key, value):
    set_of_detect = read(f"[detect]\n{line}")["detect"]
    assert {each: setting.value for each, setting in set_of_detect.items()} == {key: value}
    assert type(set_of_detect[key].value) is type(value)
    assert set_of_detect[key].origin == "rtdetrv2.toml, [detect]"


def test_what_stands_above_all_tables_is_for_every_command_and_counts_less(read):
    found = read("quiet = true\nconf = 0.2\n[detect]\nconf = 0.9\n[models.pull]\noffline = true")
    told = {
        command: {key: (setting.value, setting.origin) for key, setting in values.items()}
        for command, values in found.items()
    }
    shared, file = (True, "rtdetrv2.toml"), "rtdetrv2.toml"
    assert told == {
        "detect": {"quiet": shared, "conf": (0.9, f"{file}, [detect]")},
        "train": {"quiet": shared},
        "models pull": {"quiet": shared, "offline": (True, f"{file}, [models.pull]")},
        "models list": {},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cnof = 1", "there is no option 'cnof': did you mean conf?"),
        ("xyzzy = 1", "there is no option 'xyzzy'"),
        ("[detct]\nconf = 1", "there is no command 'detct': did you mean [detect]?"),
        ("[detect]\nclases = 1", "[detect] has no option 'clases': did you mean classes?"),
        ("[detect]\nxyzzy = 1", "'xyzzy': `rtdetrv2 config show detect` lists them"),
        ("[detect]\nno_audio = true", "[detect] has no option 'no_audio': say audio = false"),
        ("no-audio = true", "there is no option 'no-audio': say audio = false"),
        ("detect = 3", "detect is a command, and its options go into a table: [detect]"),
        ("[models]\noffline = true", "'offline' is none: use [models.pull]"),
        ("[models.pul]\noffline = true", "'pul' is none: did you mean [models.pull]?"),
        ("batch = 4", "batch is not the same for every command: put it into a table, such as [d"),
        ("conf = 'high'", "conf is 'high', not a number from 0 to 1"),
        ("conf = true", "conf is true, not a number from 0 to 1"),
        ("conf = 1.5", "conf is 1.5, not a number from 0 to 1"),
        ("conf = nan", "conf is nan, not a number from 0 to 1"),
        ("[detect]\nmax_det = 2.0", "max_det in [detect] is 2.0, not a whole number from 1"),
        ("[detect]\nmax-det = 0", "max-det in [detect] is 0, not a whole number from 1"),
        ("quiet = 1", "quiet is 1, not true or false"),
        ("quiet = 'yes'", "quiet is 'yes', not true or false"),
        ("[detect.style]\na = 1", "style in [detect] is a table, not one of box, corner"),
        ("style = 'corners'", "not one of box, corner: did you mean corner?"),
        ("include = [1, true]", "include is [1, True], not a list of texts"),
        ("classes = true", "classes is true, not a text"),
        ("[detect]\nbatch = 3", "batch in [detect] is wrong: '3' is odd"),
        ("a = ", "rtdetrv2.toml is not TOML: "),
        ("conf = 1\nconf = 2", "rtdetrv2.toml is not TOML: "),
    ],
)
def test_what_is_no_option_s_is_refused_in_one_sentence(read, content, message):
    with pytest.raises(UsageError) as refusal:
        read(content)
    told = str(refusal.value)
    assert told.startswith("rtdetrv2.toml")
    assert message in told
    assert "\n" not in told


def test_a_file_that_cannot_be_read_is_refused(read):
    read("")
    Path("rtdetrv2.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"rtdetrv2\.toml cannot be read: it is not UTF-8"):
        settings.read_file(Path("rtdetrv2.toml"), COMMANDS, is_trusted=True)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        settings.read_file(Path(), COMMANDS, is_trusted=True)


@pytest.mark.parametrize("line", ["on-detect = 'rm -r x'", "output = 'rtmp://evil/live'"])
def test_a_file_that_lies_in_the_current_folder_runs_and_sends_nothing(read, line):
    with pytest.raises(UsageError, match=r"if you trust it, say --config rtdetrv2\.toml"):
        read(f"[detect]\n{line}", is_trusted=False)
    assert read(f"[detect]\n{line}")["detect"]
    assert read("[detect]\noutput = 'found'", is_trusted=False)["detect"]


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("RTDETRV2_CONF", "0.3", 0.3),
        ("RTDETRV2_SAVE_CSV", "1", True),
        ("RTDETRV2_SAVE_CSV", "Yes", True),
        ("RTDETRV2_AUDIO", "off", False),
        ("RTDETRV2_MAX_DET", "3", 3),
        ("RTDETRV2_CLASSES", "person,car", "person,car"),
        ("RTDETRV2_INCLUDE", "*.jpg '*.b mp'", ["*.jpg", "*.b mp"]),
        ("RTDETRV2_BATCH", "8", "8"),
    ],
)
def test_a_variable_sets_its_option(variable, text, value):
    (found,) = settings.read_environment(DETECT, {variable: text}).values()
    assert (found.value, found.origin) == (value, variable)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("RTDETRV2_CONF", "high", "RTDETRV2_CONF is 'high', not a number from 0 to 1"),
        ("RTDETRV2_CONF", "2", "RTDETRV2_CONF is 2.0, not a number from 0 to 1"),
        ("RTDETRV2_QUIET", "maybe", "RTDETRV2_QUIET is 'maybe', not true or false"),
        ("RTDETRV2_MAX_DET", "1.5", "RTDETRV2_MAX_DET is '1.5', not a whole number from 1"),
        ("RTDETRV2_STYLE", "corners", "not one of box, corner: did you mean corner?"),
        ("RTDETRV2_BATCH", "3", "RTDETRV2_BATCH is wrong: '3' is odd"),
        ("RTDETRV2_INCLUDE", "'a", 'RTDETRV2_INCLUDE is "\'a", not a list of texts'),
    ],
)
def test_a_variable_that_does_not_fit_is_refused(variable, text, message):
    with pytest.raises(UsageError) as refusal:
        settings.read_environment(DETECT, {variable: text})
    assert message in str(refusal.value)


def test_an_empty_variable_sets_nothing_and_those_of_other_programs_neither():
    assert settings.read_environment(DETECT, {"RTDETRV2_CONF": "", "CONF": "0.2"}) == {}


def test_unknown_variables_of_ours_are_told_of():
    environment = dict.fromkeys(("RTDETRV2_CNOF", "RTDETRV2_HOME", "RTDETRV2_CONFIG", "PATH"), "x")
    assert settings.unknown_variables(COMMANDS, environment | {"RTDETRV2_CONF": "1"}) == [
        "RTDETRV2_CNOF is set, but no option is called so: did you mean RTDETRV2_CONF?"
    ]


def test_the_file_is_the_given_one_else_that_of_the_folder_else_the_user_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "home"
    own.mkdir()
    monkeypatch.setattr(settings, "user_folder", lambda: own)
    assert settings.find_file(None) is None
    (own / "rtdetrv2.toml").touch()
    assert settings.find_file(None) == own / "rtdetrv2.toml"
    Path("rtdetrv2.toml").touch()
    assert settings.find_file(None) == Path("rtdetrv2.toml")
    Path("other.toml").touch()
    assert settings.find_file("other.toml") == Path("other.toml")
    assert settings.find_file("none") is None
    with pytest.raises(UsageError, match="--config absent: there is no such file"):
        settings.find_file("absent")
