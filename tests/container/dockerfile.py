"""Reads a Dockerfile: stages, instructions and variables, as the reference at docs.docker.com/reference/dockerfile says.

What this project's Dockerfile does not use is refused rather than guessed at, so that a new word in it is noticed here.
"""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


class Fault(Exception):
    """What is wrong with the Dockerfile, or with what it made."""


@dataclass
class Instruction:
    line: int
    word: str
    flags: dict
    rest: str

    def exec_form(self):
        """The arguments, if they are written as a JSON array; else nothing."""
        if not self.rest.startswith("["):
            return None
        try:
            array = json.loads(self.rest)
        except ValueError as error:
            raise Fault(f"line {self.line}: not an array of strings: {self.rest} ({error})") from error
        if not array or not all(isinstance(item, str) for item in array):
            raise Fault(f"line {self.line}: not an array of strings: {self.rest}")
        return array


@dataclass
class Stage:
    base: str
    name: str
    instructions: list = field(default_factory=list)


# The flags that are understood, by instruction; every other one is refused.
FLAGS = {
    "COPY": {"from"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}
WORDS = set("ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN STOPSIGNAL USER VOLUME WORKDIR".split())


def parse(text):
    """The stages of a Dockerfile, in their order."""
    stages = []
    for line, statement in statements(text):
        word, _, rest = statement.partition(" ")
        word, rest = word.upper(), rest.strip()
        if word not in WORDS:
            raise Fault(f"line {line}: {word} is not known here")
        flags = {}
        while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            if found[1] not in FLAGS.get(word, ()):
                raise Fault(f"line {line}: {word} --{found[1]} is not known here")
            flags[found[1]] = found[2]
            rest = rest[found.end():]
        if rest.startswith("--") or "<<" in rest or not rest:
            raise Fault(f"line {line}: not understood: {statement}")
        if word == "FROM":
            found = re.fullmatch(r"(\S+)(?:\s+AS\s+(\S+))?", rest, re.IGNORECASE)
            if not found or "$" in rest:
                raise Fault(f"line {line}: not understood: {statement}")
            stages.append(Stage(found[1], found[2] or str(len(stages))))
        elif not stages:
            raise Fault(f"line {line}: {word} before FROM")
        else:
            stages[-1].instructions.append(Instruction(line, word, flags, rest))
    if not stages:
        raise Fault("there is no FROM")
    return stages


def statements(text):
    """Each statement on one line, with the number of its first; comments are left out, also between continued lines."""
    begun, parts = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and parts):
            continue
        if not line.strip():
            continue
        begun = begun or number
        continued = line.rstrip().endswith("\\")
        parts.append(line.strip()[:-1].strip() if continued else line.strip())
        if not continued:
            yield begun, " ".join(parts)
            begun, parts = 0, []
    if parts:
        raise Fault(f"line {begun}: the last line is continued")


def pairs(instruction, variables):
    """The names and values of ENV and LABEL."""
    found = {}
    for word in shlex.split(instruction.rest):
        name, equals, value = word.partition("=")
        if not equals:
            raise Fault(f"line {instruction.line}: {instruction.word} {word}: not NAME=VALUE")
        found[name] = substitute(value, variables, instruction.line)
    return found


def substitute(text, variables, line):
    """The text with `$NAME` and `${NAME}` replaced; a name that nothing has set is a fault, where Docker takes nothing."""
    def value(found):
        name = found[1] or found[2]
        if name not in variables:
            raise Fault(f"line {line}: ${name} is set nowhere before")
        return variables[name]

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, text)


class Ignored:
    """What .dockerignore keeps out of the build: the last line that matches a file, or a directory above it, decides."""

    def __init__(self, text):
        self.rules = []
        for line in text.splitlines():
            line = line.strip()
            if line and not line.startswith("#"):
                keeps = line.startswith("!")
                if keeps and "/" in line.strip("!/"):
                    raise Fault(f".dockerignore: {line}: an exception inside of a directory is not known here")
                self.rules.append((expression(line.lstrip("!").strip("/")), keeps))

    def __call__(self, path):
        parts = Path(path).parts
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        ignored = False
        for rule, keeps in self.rules:
            if any(rule.fullmatch(prefix) for prefix in prefixes):
                ignored = not keeps
        return ignored


def expression(pattern):
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part) or re.escape(part) for part in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern)))
