namespace Ublkback.Parallax.Handlers;

/// <summary>
/// The commands that the process that holds a VDI carries out. A new one is one file and one line here.
/// </summary>
internal static class VdiHandlers
{
    /// <summary>All commands.</summary>
    public static IReadOnlyList<VdiHandler> All { get; } =
    [
        SnapshotHandler.Instance,
        SnapshotsHandler.Instance,
        DeleteHandler.Instance,
        RollbackHandler.Instance,
        ResizeHandler.Instance,
        CollectHandler.Instance,
        CompactHandler.Instance,
    ];
}
