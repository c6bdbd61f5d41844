using Ublkback.Block;
using Ublkback.Hosting;

namespace Ublkback.ImageTools;

/// <summary>How commands open images, as no guest does.</summary>
internal static class ToolOpening
{
    private const long FirstDiskId = 1L << 61; // no guest's disk has it, or a higher one

    /// <summary>An opening for a command of a name. What is wrong with the storage goes to standard error.</summary>
    public static ImageOpening For(string command, bool isReadOnly) => new(
        command, FirstDiskId | (long)Environment.ProcessId, isReadOnly, !isReadOnly, null, Console.Error.WriteLine,
        StateFolder: HostEnvironment.Parse(HostEnvironment.Default).JournalDirectory)
    {
        OutlivesProcess = false,
    };
}
