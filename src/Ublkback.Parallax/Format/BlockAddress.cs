namespace Ublkback.Parallax.Format;

/// <summary>Where a block is kept: in which VDI's file, and where in it. The default is nowhere.</summary>
/// <param name="Value">The number of the VDI in the upper 24 bits, the block in the lower 40.</param>
internal readonly record struct BlockAddress(ulong Value)
{
    private const int BlockBits = 40;

    /// <summary>Largest number of a VDI.</summary>
    public const uint MaxVdi = (1u << (64 - BlockBits)) - 1;

    /// <summary>What could not be read, and was given up: an I/O error, until it is written.</summary>
    public static readonly BlockAddress Lost = new(1);

    /// <summary>An address in a VDI's file.</summary>
    public static BlockAddress Of(uint vdi, long block) => new(((ulong)vdi << BlockBits) | (ulong)block);

    /// <summary>Whether it is nowhere, so that the block reads as zeros.</summary>
    public bool IsNone => Value == 0;

    /// <summary>Whether it was given up.</summary>
    public bool IsLost => Value != 0 && Vdi == 0;

    /// <summary>Whether there is a block there, of data or a node: it is neither nowhere nor lost.</summary>
    public bool IsPlace => Vdi != 0;

    /// <summary>The number of the VDI in whose file it is.</summary>
    public uint Vdi => (uint)(Value >> BlockBits);

    /// <summary>The block of that file.</summary>
    public long Block => (long)(Value & ((1UL << BlockBits) - 1));

    /// <inheritdoc/>
    public override string ToString() => $"block {Block} of VDI {Vdi:x6}";
}
