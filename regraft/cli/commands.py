"""Classes of commands."""

import functools
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose yes/no flags show no type."""

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401, D102 - typer's own types are not public
        return _without_switch_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose yes/no flags show no type."""

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401, D102 - as above
        return _without_switch_types(super().get_params(ctx))


class GroupWithDefault(Group):
    """A group whose first command also goes without its name.

    What is none of the commands' names is the first argument of that one: a glob of networks, say.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401, D102 - as above
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [next(iter(self.commands)), *args]
        return list(super().parse_args(ctx, args))


class LateCommand(Command):
    """A command that its callback makes when it is asked for.

    Its flags are made from settings, which take a second to import.
    """

    @functools.cached_property
    def _command(self) -> Any:  # noqa: ANN401 - as above
        app = typer.Typer(add_completion=False)
        app.command(cls=Command, help=self.help)(self.callback())  # type: ignore[misc]  # typer always sets one
        return typer.main.get_command(app)

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401, D102 - as above
        return self._command.get_params(ctx)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401, D102 - as above
        return self._command.invoke(ctx)


def _without_switch_types(params: Any) -> Any:  # noqa: ANN401 - as above
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params
