using Ublkback.Block;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;
using Ublkback.Parallax.Map;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>What is left of a VDI that may be damaged, as one of its heads tells it.</summary>
/// <param name="Known">What the file says, with the snapshots that can be found.</param>
/// <param name="Content">The disk, as far as the log can be read.</param>
/// <param name="End">Where the log ends.</param>
/// <param name="Damages">How much of all that cannot be read.</param>
/// <param name="Faults">What is given up, if this is what the VDI becomes, in sentences.</param>
internal sealed record RepairCandidate(
    VdiMetadata Known, VdiVersion Content, LogPosition End, long Damages, IReadOnlyList<string> Faults)
{
    /// <summary>Looks. Blocks the thread.</summary>
    public static RepairCandidate Read(IVdiStore store, IVdiContainer container, VdiSuperblock superblock, VdiHead head)
    {
        List<string> faults = [];
        VdiMetadata known;
        try
        {
            known = VdiMetadata.Read(container, superblock, head);
        }
        catch (TargetException)
        {
            faults.Add($"the {head.SnapshotCount} snapshots are given up, since their table is damaged");
            known = new VdiMetadata(superblock, head with { Table = default, SnapshotCount = 0 }, []);
        }

        VdiVersion version = head.Content;
        LogPosition end = version.Start;
        if (version.Vdi == superblock.Vdi && version.End == 0)
        {
            VdiContent content = new(
                superblock.Vdi, new BlockMap(null!, version.Root),
                new SnapshotTable(known.Snapshots, head.NextSnapshot), version);
            LogReader log = new(container, superblock.Vdi, superblock.Id);
            try
            {
                log.Read(version.Start, 0, content.Apply);
            }
            catch (InvalidDataException)
            {
                // What the rest tells of snapshots is lost with it; what the part before tells is kept by the head that
                // is written next.
                version = version with { End = log.Reached.Sequence };
                known = known with
                {
                    Snapshots = content.Snapshots.All,
                    Head = known.Head with { NextSnapshot = content.Snapshots.NextId }
                };
                faults.Add($"what was written last is given up, from batch {log.Reached.Sequence} of the log on, "
                    + "which is damaged, and the snapshots since then");
            }

            end = log.Reached;
        }

        long damages = faults.Count;
        using VersionWalker walker =
            new(vdi => store.OpenOther(vdi, _ => { }), new BlockMarks()) { VisitDamage = _ => damages++ };
        walker.Walk([version, .. known.Snapshots.Select(snapshot => snapshot.Content)]);
        return new RepairCandidate(known, version, end, damages, faults);
    }
}
