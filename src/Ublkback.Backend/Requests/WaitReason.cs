namespace Ublkback.Backend.Requests;

/// <summary>Why the first request that waits in a ring's server cannot start.</summary>
internal enum WaitReason
{
    /// <summary>It can.</summary>
    None,

    /// <summary>Nothing but the end of this turn.</summary>
    NextTurn,

    /// <summary>A buffer, another request or a mapping, which brings a turn when it is there.</summary>
    Others,
}
