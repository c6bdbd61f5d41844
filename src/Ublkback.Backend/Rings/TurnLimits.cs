namespace Ublkback.Backend.Rings;

/// <summary>The bounds of one turn of a ring, so that no ring delays the others on its worker.</summary>
internal static class TurnLimits
{
    /// <summary>Most requests taken, and most answered, in one turn.</summary>
    public const int MaxRequests = 64;

    /// <summary>
    /// Bytes after which a turn starts, and answers, no further requests: one of the largest, so its data stays in the
    /// cache.
    /// </summary>
    public const int MaxBytes = 1 << 20;
}
