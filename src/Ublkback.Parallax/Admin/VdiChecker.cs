using Ublkback.Block;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>Reads all that VDIs and their snapshots need, and says what is damaged. Blocks the thread.</summary>
/// <param name="store">The store.</param>
/// <param name="readsData">Whether data is read too, and not only what tells where it is.</param>
/// <param name="onDamage">Takes a sentence about each damage.</param>
internal sealed class VdiChecker(IVdiStore store, bool readsData, Action<string> onDamage)
{
    private readonly byte[] _block = new byte[VdiFormat.BlockSize];
    private readonly List<string> _damaged = [];
    private long _damages;
    private long _data;
    private string _where = "";

    /// <summary>Checks some VDIs. Nothing is given back meanwhile.</summary>
    public VdiCheck Run(IReadOnlyList<string> names)
    {
        using IStoreLock alone = store.LockCollection();
        _where = "store";
        using (store.LockStructure()) store.CheckCopies(Report, repairs: false);
        BlockMarks marks = new();
        using VersionWalker walker = MakeWalker(marks);
        foreach (string name in names)
        {
            _where = $"VDI {name}";
            long before = _damages;
            try
            {
                Check(name, walker);
            }
            catch (Exception failure) when (failure is TargetException or IOException or InvalidDataException)
            {
                Report(failure.Message);
            }

            if (_damages > before) _damaged.Add(name);
        }

        if (_damages > 0) alone.Check(); // or what was given back meanwhile looks damaged
        return new VdiCheck(walker.Nodes, _data, _damages, _damaged);
    }

    private VersionWalker MakeWalker(BlockMarks marks)
    {
        VersionWalker walker = null!;
        return walker = new VersionWalker(vdi => store.OpenOther(vdi, _ => { }), marks)
        {
            VisitDamage = Report,
            VisitData = (at, crc) =>
            {
                _data++;
                if (readsData) walker.Read(at, crc, _block);
            },
        };
    }

    private void Check(string name, VersionWalker walker)
    {
        (IVdiContainer container, _) = store.OpenOther(store.Find(name), _ => { });
        try
        {
            foreach (string fault in FindFaults(container)) Report(fault);
            VdiMetadata file = VdiMetadata.Read(container);
            (IReadOnlyList<VdiSnapshot> snapshots, _) = VdiSnapshots.Read(store, file, container);
            // Who writes it is about to write the end of its log.
            VdiVersion disk = store.IsWritten(file.Superblock.Vdi)
                ? file.Head.Content.WithoutOpenLog
                : file.Head.Content;
            WalkNodes(walker, disk);
            foreach (VdiSnapshot snapshot in snapshots)
            {
                _where = $"VDI {name}@{snapshot.Name}";
                WalkNodes(walker, snapshot.Content);
            }

            _where = $"VDI {name}";
            walker.WalkLogs([disk, .. snapshots.Select(snapshot => snapshot.Content)]);
        }
        finally
        {
            container.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    // A process that writes the VDI may be about to write these blocks.
    private IReadOnlyList<string> FindFaults(IVdiContainer container)
    {
        const int Tries = 5;
        const int PauseMs = 20;
        for (int i = 1; ; i++)
        {
            EssentialBlocks blocks = EssentialBlocks.Read(container);
            IReadOnlyList<string> faults = blocks.FindFaults(container.Path);
            if (faults.Count == 0 || i == Tries || !store.IsWritten(blocks.Superblock.Vdi)) return faults;
            Thread.Sleep(PauseMs);
        }
    }

    private void WalkNodes(VersionWalker walker, VdiVersion version)
    {
        long before = walker.Lost;
        walker.WalkNodes(version);
        if (walker.Lost > before)
            Report($"{walker.Lost - before} blocks of 4 KiB were given up, and are I/O errors until they are written");
    }

    private void Report(string what)
    {
        _damages++;
        onDamage($"{_where}: {what}");
    }
}
