namespace Ublkback.Replay;

/// <summary>How a capture is played.</summary>
/// <param name="PlaysChanges">Whether writes and discards are played too.</param>
/// <param name="KeepsTime">Whether requests come no sooner than they did.</param>
internal sealed record ReplayOptions(bool PlaysChanges, bool KeepsTime);
