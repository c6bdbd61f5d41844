using System.CommandLine;

namespace Ublkback.Commands.Disks;

/// <summary><c>ublkback resume</c></summary>
internal static class ResumeCommand
{
    public static Command Make() => DiskCommands.Make(
        "resume",
        """
        Try again the requests that are held because their storage failed (target option on-error=hold), after it was
        mended.

        What fails again is held again: 'ublkback list' shows it.

        Example:
          rm /images/old.img && ublkback resume
        """,
        vbd => $"{vbd.InFlight} requests in hand");
}
