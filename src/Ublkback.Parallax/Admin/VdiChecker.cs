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
    private readonly List<string> _found = []; // in the VDI that is being checked
    private long _damages;
    private long _data;
    private string _where = "";

    /// <summary>
    /// Checks a VDI, or all if it is null. Nothing is given back meanwhile. Those that are deleted meanwhile are left
    /// out.
    /// </summary>
    public VdiCheck Run(string? only)
    {
        using IStoreLock alone = store.LockCollection(Collector.CommandPatience);
        _where = "store";
        using (store.LockStructure()) store.CheckCopies(Report, repairs: false);
        Publish();
        BlockMarks marks = new();
        using VersionWalker walker = MakeWalker(marks);
        foreach (string name in only is null ? store.Names : [only])
        {
            CheckNamed(name, walker);
            if (_found.Count > 0 && only is null && !store.Names.Contains(name)) _found.Clear();
            if (_found.Count > 0) _damaged.Add(name);
            Publish();
        }

        if (_damages > 0) alone.Check(); // or what was given back meanwhile looks damaged
        return new VdiCheck(walker.Nodes, _data, _damages, _damaged);
    }

    private void CheckNamed(string name, VersionWalker walker)
    {
        const int Tries = 3;
        uint vdi = 0;
        string? state = null;
        for (int i = 1; ; i++)
        {
            _where = $"VDI {name}";
            try
            {
                vdi = store.Find(name);
                state = store.ReadState(vdi);
                Check(vdi, name, state, walker);
                return;
            }
            catch (Exception failure) when (failure is TargetException or IOException or InvalidDataException)
            {
                // A process may have begun to write what was being read.
                if (i < Tries && vdi != 0 && HasChanged(vdi, state)) continue;
                Report(failure.Message);
                return;
            }
        }
    }

    private bool HasChanged(uint vdi, string? state)
    {
        try
        {
            return store.IsWritten(vdi) || store.ReadState(vdi) != state;
        }
        catch (Exception failure) when (failure is TargetException or IOException)
        {
            return false; // it is not there any more
        }
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

    private void Check(uint vdi, string name, string? state, VersionWalker walker)
    {
        using IVdiContainer container = store.OpenOther(vdi, _ => { }).Container;
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
        int before = _found.Count;
        walker.WalkLogs([disk, .. snapshots.Select(snapshot => snapshot.Content)]);
        if (_found.Count == before || disk.End != 0 || !HasChanged(vdi, state)) return;
        // Who opened it meanwhile writes the end of its log.
        _found.RemoveRange(before, _found.Count - before);
        walker.WalkLogs([disk.WithoutOpenLog, .. snapshots.Select(snapshot => snapshot.Content)]);
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

    // Whether it is damage is known when the VDI has been read.
    private void Report(string what)
    {
        _found.Add($"{_where}: {what}");
    }

    private void Publish()
    {
        _damages += _found.Count;
        _found.ForEach(onDamage);
        _found.Clear();
    }
}
