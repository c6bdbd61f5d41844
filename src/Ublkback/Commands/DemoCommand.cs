using System.CommandLine;
using Ublkback.Demo;

namespace Ublkback.Commands;

/// <summary><c>ublkback demo</c></summary>
internal static class DemoCommand
{
    public static Command Make()
    {
        Option<double> seconds = new("--seconds")
        {
            Description = "How long the random mix runs.",
            DefaultValueFactory = _ => 3,
        };
        Command command =
            new("demo", "See it work without Xen: host, daemon and guest as processes, with data checked.") { seconds };
        command.SetAction(
            (arguments, _) => new Demonstration(TimeSpan.FromSeconds(arguments.GetValue(seconds))).RunAsync());
        return command;
    }
}
