namespace Ublkback.HostTests.Fixtures;

/// <summary>How something in a pool is damaged.</summary>
internal enum PoolHarm
{
    /// <summary>A bit of the block is another.</summary>
    Flipped,

    /// <summary>The block is zeros.</summary>
    Zeroed,

    /// <summary>The block is as it was some time ago.</summary>
    Older,

    /// <summary>The object ends in the middle of what it holds.</summary>
    Cut,

    /// <summary>The object, the key or the attribute is gone.</summary>
    Removed,

    /// <summary>The object has its length, and is zeros.</summary>
    AllZeroed,

    /// <summary>The object is as it was some time ago, with its keys and attributes.</summary>
    AllOlder,

    /// <summary>The key or the attribute has another value.</summary>
    Changed,
}

/// <summary>One damage: of an object, of a block of it, of a key, or of an attribute.</summary>
/// <param name="Object">The name of the object.</param>
/// <param name="Harm">How.</param>
/// <param name="Where">What is damaged, as the table calls it.</param>
/// <param name="Block">The block; -1 if it is not one.</param>
/// <param name="Key">The key or the attribute; empty if it is none.</param>
internal sealed record PoolDamage(string Object, PoolHarm Harm, string Where, int Block = -1, string Key = "")
{
    /// <summary>How the table calls it.</summary>
    public string Row => $"{Where} | {Harm switch
    {
        PoolHarm.Flipped => "a bit flipped",
        PoolHarm.Zeroed or PoolHarm.AllZeroed => "zeroed",
        PoolHarm.Older or PoolHarm.AllOlder => "an older version",
        PoolHarm.Cut => "cut to half",
        PoolHarm.Removed => "removed",
        _ => "another value",
    }}";
}
