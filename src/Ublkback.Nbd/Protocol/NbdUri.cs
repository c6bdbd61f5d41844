namespace Ublkback.Nbd.Protocol;

/// <summary>Writes addresses of disks as the URI standard of NBD has them.</summary>
public static class NbdUri
{
    /// <summary>The address of a disk at a Unix socket. QEMU, libnbd and this program read it.</summary>
    /// <param name="socket">The path of the socket.</param>
    /// <param name="export">The name of the disk.</param>
    public static string OfSocket(string socket, string export = "") =>
        $"nbd+unix:///{Uri.EscapeDataString(export)}?socket="
            + string.Join('/', (socket ?? "").Split('/').Select(Uri.EscapeDataString));
}
