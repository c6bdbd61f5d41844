using Ublkback.Block;

namespace Ublkback.Parallax.Format;

/// <summary>
/// The content of a disk at one instant: a map, and the part of a log that was written after the map.
/// </summary>
/// <param name="Root">The map.</param>
/// <param name="Size">Bytes of the disk, as the map has it; the log may change it.</param>
/// <param name="Vdi">Whose log it is.</param>
/// <param name="Start">Where the log goes on after the map.</param>
/// <param name="End">The number of the first batch that does not belong to it; 0: all that is there does.</param>
internal sealed record VdiVersion(MapRoot Root, long Size, uint Vdi, LogPosition Start, ulong End)
{
    public static VdiVersion Read(ref FieldReader fields)
    {
        MapRoot root =
            new(new MapEntry(new BlockAddress(fields.ReadUInt64()), fields.ReadUInt32()), (int)fields.ReadUInt32());
        return new VdiVersion(
            root, fields.ReadInt64(), fields.ReadUInt32(), LogPosition.Read(ref fields), fields.ReadUInt64());
    }

    public void Write(ref FieldWriter fields)
    {
        fields.Write(Root.Node.Address.Value);
        fields.Write(Root.Node.Crc);
        fields.Write((uint)Root.Depth);
        fields.Write(Size);
        fields.Write(Vdi);
        Start.Write(ref fields);
        fields.Write(End);
    }

    /// <summary>The map without the log after it, if nothing but its writer says where that ends.</summary>
    public VdiVersion WithoutOpenLog => End == 0 ? this with { End = Start.Sequence } : this;

    /// <summary>What makes no sense about it; null when nothing does.</summary>
    public string? FindFault()
    {
        if (Size is <= 0 or > VdiFormat.MaxSize || Size % BlockRequest.SectorSize != 0)
            return $"a size of {Size} bytes";
        if (Root.Depth is < 1 or > MapRoot.MaxDepth || Root.Depth < MapRoot.DepthFor(VdiFormat.BlocksFor(Size)))
            return $"a map of {Root.Depth} levels";
        return Vdi is 0 or > BlockAddress.MaxVdi || Start.Block < VdiFormat.SegmentBlocks
            ? "a log that is nowhere"
            : null;
    }
}
