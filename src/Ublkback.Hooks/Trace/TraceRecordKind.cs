namespace Ublkback.Hooks.Trace;

/// <summary>What a record of a capture is, and what follows it.</summary>
public enum TraceRecordKind : byte
{
    /// <summary>A request.</summary>
    Request,

    /// <summary>A request, and then the data that it wrote.</summary>
    RequestWithData,

    /// <summary>As many requests as the field of the sectors says are missing here.</summary>
    Lost,
}
