using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Handlers;
using Ublkback.Parallax.Requests;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>What can be done with VDIs, whoever has them open. Any thread; blocks it, or waits.</summary>
/// <remarks>
/// What changes a VDI that a process has open for writing, that process is asked to do. Otherwise it is opened here.
/// Failures are <see cref="TargetException"/>s with a sentence for people.
/// </remarks>
public sealed class VdiAdmin : IDisposable
{
    private readonly IVdiStore _store;
    private readonly Worker _worker;
    private readonly Func<bool, ImageOpening> _opening;

    private VdiAdmin(IVdiStore store, Worker worker, Func<bool, ImageOpening> opening)
    {
        _store = store;
        _worker = worker;
        _opening = opening;
    }

    /// <summary>
    /// Opens a store: <c>file:FOLDER</c> or <c>rados:POOL?conf=/path&amp;id=USER</c>, null for the usual one.
    /// </summary>
    /// <param name="text">Which store.</param>
    /// <param name="makes">Whether it is made if it is not there.</param>
    /// <param name="worker">Where VDIs are used.</param>
    /// <param name="opening">How they are opened: whether for reading only.</param>
    public static VdiAdmin Open(string? text, bool makes, Worker worker, Func<bool, ImageOpening> opening) =>
        new(VdiStoreFactory.Open(text, makes: makes, isForCommand: true), worker, opening);

    /// <summary>The names of all VDIs, in order.</summary>
    public IReadOnlyList<string> Names => _store.Names;

    /// <summary>What is where only VDIs and names should be, and is neither. It does no harm.</summary>
    public IReadOnlyList<string> Strays => _store.Strays;

    /// <summary>What is known of a VDI.</summary>
    public VdiInfo Describe(string name)
    {
        uint vdi = _store.Find(name);
        (VdiMetadata file, IReadOnlyList<VdiSnapshot> snapshots, long size) = Read(vdi);
        return new VdiInfo(
            name, vdi, size, _store.MeasureUsage(vdi), file.Head.Origin, TimeOf(file.Superblock.CreatedMs),
            _store.IsWritten(vdi) ? _store.ReadHolder(vdi)?.ToString() : null,
            [.. snapshots.Select(snapshot => new VdiSnapshotInfo(snapshot.Name, TimeOf(snapshot.CreatedMs)))]);
    }

    /// <summary>Makes an empty VDI.</summary>
    public void Create(string name, long size) => VdiOpener.Create(_store, name, size);

    /// <summary>Makes a snapshot of what a VDI holds now.</summary>
    public Task SnapshotAsync(string name, string snapshot) =>
        AskOrDoAsync(name, SnapshotHandler.Instance, new SnapshotRequest(VdiName.Check(snapshot)));

    /// <summary>Makes a VDI with the content of a snapshot.</summary>
    public void Clone(string source, string name)
    {
        VdiName from = VdiName.Parse(source);
        if (from.Snapshot is null)
            throw new TargetException(
                $"{source} is no snapshot",
                $"make one with 'ublkback vdi snapshot {source} NAME', and clone {source}@NAME");
        using IDisposable structure = _store.LockStructure();
        (_, IReadOnlyList<VdiSnapshot> snapshots, _) = Read(_store.Find(from.Vdi));
        VdiSnapshot snapshot = FindIn(snapshots, from);
        _store.Create(name, _ => snapshot.Content, from.ToString());
    }

    /// <summary>
    /// Gives a VDI the content of a snapshot of it. What it holds now is kept in another; gives its name.
    /// </summary>
    /// <param name="text">The snapshot.</param>
    /// <param name="whileUsed">Whether somebody may have the VDI open, who then reads something else than was
    /// written.</param>
    public async Task<string> RollBackAsync(string text, bool whileUsed)
    {
        VdiName name = VdiName.Parse(text);
        if (name.Snapshot is null) throw new TargetException($"{text} is no snapshot", $"say which, as in {text}@NAME");
        using IDisposable structure = _store.LockStructure();
        uint vdi = _store.Find(name.Vdi);
        (_, IReadOnlyList<VdiSnapshot> snapshots, long size) = Read(vdi);
        bool isUsed = _store.IsWritten(vdi);
        if (isUsed && !whileUsed)
            throw new ImageInUseException(
                $"VDI {name.Vdi} is in use by {_store.ReadHolder(vdi)?.ToString() ?? "another program"}",
                "detach it, or, when its guest has unmounted it, say --live");
        RollbackRequest request = new(FindIn(snapshots, name).Name, isUsed ? size : 0);
        return (await AskOrDoAsync(name.Vdi, RollbackHandler.Instance, request).ConfigureAwait(false)).Kept;
    }

    /// <summary>Gives a VDI another size: larger, or smaller when nobody has it open.</summary>
    public Task ResizeAsync(string name, long size) =>
        AskOrDoAsync(name, ResizeHandler.Instance, new ResizeRequest(size));

    /// <summary>Takes a VDI away from who has it open and does not answer.</summary>
    public void BreakLock(string name) => _store.BreakLock(name, _opening(false).Warn);

    /// <summary>Deletes a snapshot.</summary>
    public Task DeleteSnapshotAsync(string vdi, string snapshot) =>
        AskOrDoAsync(vdi, DeleteHandler.Instance, new DeleteRequest(snapshot));

    /// <summary>
    /// Deletes a VDI that nobody has open, and its snapshots if that is allowed. Clones of these keep what they have.
    /// </summary>
    public async Task DeleteAsync(string name, bool withSnapshots)
    {
        using IDisposable structure = _store.LockStructure();
        uint vdi = _store.Find(name);
        if (!_store.Exists(vdi))
        {
            _store.Unlink(name);
            return;
        }

        List<IDisposable> alone = [];
        IVdiContainer container = _store.OpenOwn(name, "none", _opening(false));
        try
        {
            alone.Add(_store.BeginDeletion(vdi));
            CheckDeletable(name, vdi, container, withSnapshots, alone);
            _store.Unlink(name);
        }
        finally
        {
            await container.DisposeAsync().ConfigureAwait(false);
            alone.ForEach(snapshot => snapshot.Dispose());
        }
    }

    /// <summary>Gives back what no VDI and no snapshot needs any more; gives the number of bytes.</summary>
    public async Task<long> CollectAsync()
    {
        long freed = 0;
        List<VdiImage> closed = [];
        try
        {
            foreach (string name in Names)
            {
                CollectReply? reply = await VdiSocket.TryAskAsync(
                    _store, _store.Find(name), CollectHandler.Instance, new CollectRequest()).ConfigureAwait(false);
                if (reply is null) TryOpenToWrite(name, closed);
                else freed += reply.FreedBytes;
            }

            Collector collector = new(_store, _opening(false).Warn);
            await collector.RunAsync(closed, withUnnamed: true).ConfigureAwait(false);
            return freed + (collector.Freed * VdiFormat.BlockSize);
        }
        finally
        {
            foreach (VdiImage image in closed) await image.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Gives back what only deleted VDIs needed; gives the number of bytes.</summary>
    public async Task<long> CollectDeletedAsync()
    {
        Collector collector = new(_store, _opening(false).Warn);
        await collector.RunAsync([], withUnnamed: true).ConfigureAwait(false);
        return collector.Freed * VdiFormat.BlockSize;
    }

    /// <summary>
    /// Puts together in the file what is together on the disk; gives the number of bytes that were written for that.
    /// </summary>
    public async Task<long> CompactAsync(string name) =>
        (await AskOrDoAsync(name, CompactHandler.Instance, new CompactRequest()).ConfigureAwait(false)).WrittenBytes;

    /// <summary>
    /// Looks whether all is whole that VDIs and their snapshots need; null for all VDIs. Says what is not.
    /// </summary>
    /// <param name="name">Which VDI.</param>
    /// <param name="readsData">Whether the data is read too.</param>
    /// <param name="onDamage">Takes a sentence about each damage.</param>
    public VdiCheck Check(string? name, bool readsData, Action<string> onDamage) =>
        new VdiChecker(_store, readsData, onDamage).Run(name is null ? Names : [name]);

    /// <summary>
    /// Repairs what says that this is a store, and the names of its VDIs, from their copies. Reports each repair.
    /// </summary>
    public void RepairStore(Action<string> onRepair)
    {
        using IDisposable structure = _store.LockStructure();
        _store.CheckCopies(fault => onRepair($"store: {fault}"), repairs: true);
    }

    /// <summary>
    /// Repairs a VDI that nobody has open, as far as that can be done: see <see cref="VdiRepairer"/>. Says what is
    /// given up for that.
    /// </summary>
    public Task RepairAsync(string name, Action<string> onRepair) =>
        new VdiRepairer(_store, _worker, _opening(false), onRepair).RunAsync(name);

    /// <summary>
    /// The ranges in which two disks may differ; <c>NAME</c> or <c>NAME@SNAPSHOT</c> each. Nobody may write them.
    /// </summary>
    public async Task<IReadOnlyList<VdiRange>> DiffAsync(string one, string other)
    {
        VdiImage first = VdiOpener.Open(_store, VdiName.Parse(one), "none", _opening(true));
        await using (first.ConfigureAwait(false))
        {
            VdiImage second = VdiOpener.Open(_store, VdiName.Parse(other), "none", _opening(true));
            await using (second.ConfigureAwait(false))
                return await _worker.InvokeAsync(() => VdiDiff.RunAsync(first.Parts, second.Parts))
                    .ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _store.Dispose();

    private async Task<TReply> AskOrDoAsync<TRequest, TReply>(
        string name, VdiHandler<TRequest, TReply> handler, TRequest request)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        uint vdi = _store.Find(name);
        if (await VdiSocket.TryAskAsync(_store, vdi, handler, request).ConfigureAwait(false) is { } reply) return reply;
        VdiImage image = OpenToWrite(name);
        await using (image.ConfigureAwait(false))
            return await handler.RunAsync(request, new VdiHolder(_store, image, _opening(false).Warn))
                .ConfigureAwait(false);
    }

    // Nobody opens its snapshots until what it adds to a list is disposed.
    private void CheckDeletable(
        string name, uint vdi, IVdiContainer container, bool withSnapshots, List<IDisposable> alone)
    {
        try
        {
            IReadOnlyList<VdiSnapshot> snapshots =
                VdiSnapshots.ReadFile(VdiMetadata.Read(container), container).Snapshots;
            if (snapshots.Count > 0 && !withSnapshots)
                throw new ImageInUseException(
                    $"VDI {name} has {snapshots.Count} snapshots, which would be deleted with it",
                    "add --snapshots if you mean that");
            foreach (VdiSnapshot snapshot in snapshots)
            {
                alone.Add(_store.TryForbidPins(vdi, snapshot.Id)
                    ?? throw new ImageInUseException($"{name}@{snapshot.Name} is in use", "detach it first"));
            }
        }
        catch (TargetException damage) when (damage is not ImageInUseException)
        {
            if (!withSnapshots)
                throw new TargetException(damage.Problem, "add --snapshots to delete it all the same", damage);
        }
    }

    private void TryOpenToWrite(string name, List<VdiImage> opened)
    {
        try
        {
            opened.Add(OpenToWrite(name));
        }
        catch (ImageInUseException)
        {
            // Who reads it by its name alone keeps all that it has; what others do not need is given back.
        }
    }

    private VdiImage OpenToWrite(string name)
    {
        VdiImage image = VdiOpener.Open(_store, new VdiName(name, null), "none", _opening(false));
        image.UseOn(_worker);
        return image;
    }

    private (VdiMetadata File, IReadOnlyList<VdiSnapshot> Snapshots, long Size) Read(uint vdi)
    {
        (IVdiContainer container, _) = _store.OpenOther(vdi, _opening(true).Warn);
        try
        {
            VdiMetadata file = VdiMetadata.Read(container);
            (IReadOnlyList<VdiSnapshot> snapshots, long size) = VdiSnapshots.Read(_store, file, container);
            return (file, snapshots, size);
        }
        finally
        {
            container.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    private static VdiSnapshot FindIn(IReadOnlyList<VdiSnapshot> snapshots, VdiName name) =>
        snapshots.FirstOrDefault(snapshot => snapshot.Name == name.Snapshot)
        ?? throw new TargetException(
            $"VDI {name.Vdi} has no snapshot {name.Snapshot}", $"see 'ublkback vdi snapshots {name.Vdi}'");

    private static DateTimeOffset TimeOf(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);
}
