namespace Ublkback.Block;

/// <summary>What a <see cref="BlockRequest"/> asks of an image.</summary>
public enum BlockOperation : byte
{
    /// <summary>Fill the request's data from the image.</summary>
    Read,

    /// <summary>Store the request's data in the image.</summary>
    Write,

    /// <summary>Make every write that completed before this request durable. Carries no data.</summary>
    Flush,

    /// <summary>
    /// Free the sectors: what they hold afterwards is undefined until it is written. Carries no data.
    /// </summary>
    Discard,
}
