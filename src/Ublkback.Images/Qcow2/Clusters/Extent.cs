using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;

namespace Ublkback.Images.Qcow2.Clusters;

/// <summary>Guest bytes in one piece that are all kept in the same way.</summary>
/// <param name="Status">Whether it could be found out.</param>
/// <param name="Kind">How they are kept.</param>
/// <param name="Length">How many bytes.</param>
/// <param name="Entry">The entry of level 2 of the first of them.</param>
/// <param name="HostOffset">Where the first of them is in the file, when they are data.</param>
[DataPath]
internal readonly record struct Extent(BlockStatus Status, ClusterKind Kind, int Length, L2Entry Entry, long HostOffset)
{
    /// <summary>Finds how bytes are kept, from the entry of the first on as far as the page goes.</summary>
    /// <param name="place">The entry of the first byte.</param>
    /// <param name="header">The image's header.</param>
    /// <param name="offset">The first byte.</param>
    /// <param name="most">How many bytes are asked for.</param>
    public static Extent Find(in EntryPlace place, Qcow2Header header, long offset, int most)
    {
        Qcow2Layout layout = header.Layout;
        int within = layout.WithinCluster(offset);
        long length = layout.ClusterSize - within;
        if (place.Status != BlockStatus.Okay) return new Extent(place.Status, ClusterKind.Invalid, 0, default, 0);
        if (place.Page is not MetadataPage page)
        {
            // No table: nothing of what it would be for is there.
            long tableBytes = layout.OffsetOf(layout.EntriesPerTable);
            return new Extent(
                BlockStatus.Okay, ClusterKind.Unallocated,
                (int)Math.Min(most, tableBytes - (offset & (tableBytes - 1))), default, 0);
        }

        L2Entry first = new(page[place.Index]);
        ClusterKind kind = first.KindIn(layout, header.Version);
        if (kind is not (ClusterKind.Compressed or ClusterKind.Invalid))
        {
            int entries = page.Data.Length / Qcow2Layout.EntrySize;
            for (int i = 1; length < most && place.Index + i < entries; i++)
            {
                L2Entry next = new(page[place.Index + i]);
                if (next.KindIn(layout, header.Version) != kind) break;
                if (kind == ClusterKind.Data && next.Value != first.Value + (ulong)layout.OffsetOf(i)) break;
                length += layout.ClusterSize;
            }
        }

        return new Extent(
            kind == ClusterKind.Invalid ? BlockStatus.IoError : BlockStatus.Okay, kind, (int)Math.Min(most, length),
            first,
            first.HostOffset + within);
    }

    /// <summary>
    /// Reports an entry that makes no sense. The storage itself has reported one that could not be read.
    /// </summary>
    public BlockStatus ReportTo(Corruption corruption, long guestOffset) => Length == 0
        ? Status
        // off the path: the image is corrupt
        : corruption.Report($"the entry of the guest's byte {guestOffset} is {Entry.Value:x16}");
}
