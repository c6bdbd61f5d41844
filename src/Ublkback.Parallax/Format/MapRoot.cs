namespace Ublkback.Parallax.Format;

/// <summary>The root of a map: a tree of nodes of 256 entries each.</summary>
/// <param name="Node">Its topmost node; the default when nothing is mapped.</param>
/// <param name="Depth">Levels of nodes, from 1 on. Leaves are level 1.</param>
internal readonly record struct MapRoot(MapEntry Node, int Depth)
{
    /// <summary>Entries of a node, as a power of two.</summary>
    public const int FanoutBits = 8;

    /// <summary>Entries of a node.</summary>
    public const int Fanout = 1 << FanoutBits;

    /// <summary>Levels that the largest VDI needs.</summary>
    public const int MaxDepth = 5;

    /// <summary>The empty map for a number of blocks.</summary>
    public static MapRoot EmptyFor(long blockCount) => new(default, DepthFor(blockCount));

    /// <summary>Levels that a number of blocks needs.</summary>
    public static int DepthFor(long blockCount)
    {
        int depth = 1;
        while (blockCount > 1L << (depth * FanoutBits)) depth++;
        return depth;
    }

    /// <summary>Whether a block lies in the range of the tree.</summary>
    public bool Covers(long block) => block >> (Depth * FanoutBits) == 0;

    /// <summary>The number of the node of a level that covers a block, counted along that level.</summary>
    public static long NodeOf(long block, int level) => block >> (level * FanoutBits);

    /// <summary>Which entry of that node it is.</summary>
    public static int EntryOf(long block, int level) => (int)(block >> ((level - 1) * FanoutBits)) & (Fanout - 1);
}
