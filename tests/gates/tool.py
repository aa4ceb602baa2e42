#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command-line tool: help, completion, configuration schema and behaviour say the same."""

import copy
import json
import os
import re
import tempfile

from gate import Gate, run

EXIT_USAGE = 2


class Tool:
    """The built tool."""

    def __init__(self, path):
        self.path = path

    def help(self, command):
        """Help of a command ("" for the overview)."""
        status, text = run([self.path, *command.split(), "--help"])
        return text if status == 0 else ""

    def commands(self):
        """Names of all commands, as the overview lists them."""
        block = self.help("").partition("Commands:\n")[2].partition("\n\n")[0]
        return [line[2:16].strip() for line in block.splitlines()]

    def options(self, command):
        """Long options of a command."""
        return re.findall(r"^  (?:-\w, |    )--([\w-]+)", self.help(command), re.M)

    def check_config(self, folder, document):
        """Status and message for a configuration."""
        path = os.path.join(folder, "config.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)
        return run([self.path, "config", "check", path])


def completion_faults(text, tool):
    """Commands and options that completion lacks or invents."""
    known = dict(re.findall(r'"([a-z ]+)"\)\s+echo "([^"]*)"', text))
    faults = []
    for command in tool.commands():
        offered = set(known.get(command, "").replace("--", "").split())
        faults += [f"{command}: --{name} is not completed"
                   for name in sorted(set(tool.options(command)) - offered)]
        faults += [f"{command}: --{name} is completed but unknown"
                   for name in sorted(offered - set(tool.options(command)))]
    return faults + [f"{name}: no such command" for name in known if name not in tool.commands()]


def secret_faults(tool):
    """Options that would take a secret as an argument."""
    return [f"{command}: --{name}" for command in tool.commands() for name in tool.options(command)
            if re.fullmatch(r"(?:.*-)?(?:password|passphrase|secret)", name)]


def example_of(schema):
    """The fullest value that a schema allows."""
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "object":
        return {name: example_of(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [example_of(schema["items"])]
    if kind == "integer":
        return schema["minimum"]
    return {"string": "text", "boolean": True}[kind]


def wrong_values(schema):
    """Values that a schema refuses."""
    kind = schema.get("type")
    wrong = [None, 1.5]
    if kind == "integer":
        wrong += [schema["minimum"] - 1, "1"]
        if schema["maximum"] < 1 << 62:
            wrong.append(schema["maximum"] + 1)
    elif kind == "boolean":
        wrong += [1, "true"]
    elif kind == "array":
        wrong += [{}] + ([[]] if schema.get("minItems") else [])
    elif kind == "object":
        wrong += [[], "text"]
    else:
        wrong += ["" if "enum" not in schema else "other", 3]
    return wrong


def places(schema, path=()):
    """Every value of the schema with its path in the example."""
    for name, part in schema.get("properties", {}).items():
        yield path, name, part
        if part.get("type") == "array" and "properties" in part["items"]:
            yield from places(part["items"], (*path, name, 0))
        if "properties" in part:
            yield from places(part, (*path, name))


def at(document, path):
    """The part of a document at a path."""
    for step in path:
        document = document[step]
    return document


def path_text(path, name):
    """The path as the tool writes it."""
    text = ""
    for step in (*path, name):
        text += f"[{step}]" if isinstance(step, int) else f"{'.' if text else ''}{step}"
    return text


def complete_example(schema):
    """An example whose references lead somewhere."""
    example = example_of(schema)
    example["jobs"][0].update(pool="text", repository="text")
    example["site"].update(pool="text")
    return example


def config_faults(tool, folder, schema):
    """Documents that the tool judges in another way than the schema, or without naming the place."""
    example = complete_example(schema)
    status, text = tool.check_config(folder, example)
    faults = [] if status == 0 else [f"the full example is refused: {text}"]
    for path, name, part in places(schema):
        where = path_text(path, name)
        for wrong in wrong_values(part):
            document = copy.deepcopy(example)
            at(document, path)[name] = wrong
            status, text = tool.check_config(folder, document)
            if status != EXIT_USAGE or where not in text:
                faults.append(f"{where} = {wrong!r}: status {status}: {text.strip()}")
    return faults


def required_faults(tool, folder, schema):
    """Members that may not be missing, and unknown ones."""
    example = complete_example(schema)
    faults = []
    owners = {(): schema}
    for path, name, part in places(schema):
        if part.get("type") == "array" and "properties" in part["items"]:
            owners[(*path, name, 0)] = part["items"]
        if "properties" in part:
            owners[(*path, name)] = part
    for path, owner in owners.items():
        for name in owner["properties"]:
            document = copy.deepcopy(example)
            del at(document, path)[name]
            if name in ("pools", "repositories"):
                document.pop("jobs", None)
                document.get("site", {}).pop("pool", None)
            status, text = tool.check_config(folder, document)
            wanted = EXIT_USAGE if name in owner.get("required", []) else 0
            if status != wanted:
                faults.append(f"without {path_text(path, name)}: status {status}: {text.strip()}")
        document = copy.deepcopy(example)
        at(document, path)["stranger"] = 1
        status, text = tool.check_config(folder, document)
        if status != EXIT_USAGE or path_text(path, "stranger") not in text:
            faults.append(f"{path_text(path, 'stranger')}: status {status}: {text.strip()}")
    return faults


def usage_faults(tool):
    """Wrong command lines that are not answered with the usage code."""
    faults = []
    for words in ([], ["nonsense"], ["pool"], ["points", "--all"], ["restore"], ["jobs"],
                  ["disk", "read", "x"], ["backup"], ["jobs", "--limit", "x"],
                  ["config", "check", "/nonexistent"], ["points", "--repo"],
                  ["pool", "show", "--pool", "name"]):
        status, text = run([tool.path, *words])
        if status != EXIT_USAGE or not text.startswith("xvsa: "):
            faults.append(f"{' '.join(words)}: status {status}: {text.strip()}")
    return faults


def main():
    """Runs the checks."""
    gate = Gate(__doc__)
    tool = Tool(os.path.join(gate.build, "tools", "xvsa"))
    if not os.path.exists(tool.path):
        gate.check("the tool is built", [f"{tool.path} is not there"])
        gate.end()
    commands = tool.commands()
    gate.check("commands", [] if len(commands) > 10 else [f"found {commands}"])
    gate.check("every command has help",
               [name for name in commands if "Options:" not in tool.help(name)])
    completion = gate.read("tools/completion/xvsa")
    gate.notices("an option without completion",
                 completion_faults(completion.replace("--password-fd", "", 1), tool), "password-fd")
    gate.check("completion", completion_faults(completion, tool))
    gate.check("no secret is an argument", secret_faults(tool))
    gate.check("wrong command lines", usage_faults(tool))
    documented = gate.read("docs/cli.md")
    gate.check("docs/cli.md names every command",
               [name for name in commands if f"xvsa {name}" not in documented])
    schema = json.loads(gate.read("docs/config.schema.json"))
    described = gate.read("docs/config.md")
    gate.check("docs/config.md names every member",
               sorted({name for _, name, _ in places(schema) if f"`{name}`" not in described}))
    with tempfile.TemporaryDirectory(prefix="xvsa-gate-") as folder:
        seeded = copy.deepcopy(schema)
        seeded["properties"]["invented"] = {"type": "boolean"}
        gate.notices("a member that only the schema has", config_faults(tool, folder, seeded),
                     "invented")
        gate.check("configuration: values", config_faults(tool, folder, schema))
        gate.check("configuration: members", required_faults(tool, folder, schema))
    gate.end()


if __name__ == "__main__":
    main()
