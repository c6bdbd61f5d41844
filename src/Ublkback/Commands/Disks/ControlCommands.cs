using Ublkback.Control;

namespace Ublkback.Commands.Disks;

/// <summary>The commands that the daemon carries out. A new one is one file and one line here.</summary>
internal static class ControlCommands
{
    /// <summary>All commands, in the order of the program's help.</summary>
    public static IReadOnlyList<ControlCommand> All { get; } =
    [
        ListCommand.Control,
        StatsCommand.Control,
        ResizeCommand.Control,
        ResumeCommand.Control,
        ChangeCommand.Control,
        HotplugAddCommand.Control,
        HotplugRemoveCommand.Control,
    ];
}
