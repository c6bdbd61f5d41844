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
    /// <exception cref="TargetException">It cannot be read.</exception>
    public VdiInfo Describe(string name) => Describer.Describe(name, patience: null);

    /// <summary>
    /// What is known of all VDIs, in the order of their names. A process that does not answer costs its VDI alone. VDIs
    /// that are deleted meanwhile are left out.
    /// </summary>
    /// <param name="onFailure">Takes the name of a VDI that cannot be read, and why. Any thread.</param>
    /// <param name="patience">How long a process that has a VDI open may take to answer; 2 s if null.</param>
    public IReadOnlyList<VdiInfo> DescribeAll(
        Action<string, TargetException> onFailure, TimeSpan? patience = null) =>
        Describer.DescribeAll(onFailure, patience ?? TimeSpan.FromSeconds(2));

    /// <summary>Returns a sentence about a VDI whose import has not ended: how to go on.</summary>
    public static string ExplainUnfinished(VdiInfo info)
    {
        ArgumentNullException.ThrowIfNull(info);
        return info.Holder is null
            ? VdiOpener.ExplainUnfinished(info.Name).Message
            : $"VDI {info.Name} is unfinished: {info.Holder} is filling it";
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
        (_, IReadOnlyList<VdiSnapshot> snapshots, _) = Describer.Read(_store.Find(from.Vdi), patience: null);
        VdiSnapshot snapshot = snapshots.FirstOrDefault(known => known.Name == from.Snapshot)
            ?? throw new TargetException(
                $"VDI {from.Vdi} has no snapshot {from.Snapshot}", $"see 'ublkback vdi snapshots {from.Vdi}'");
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
        uint vdi = _store.Find(name.Vdi);
        if (!whileUsed && _store.IsWritten(vdi)) // who carries it out looks again
            throw new ImageInUseException(
                $"VDI {name.Vdi} is in use by {_store.ReadHolder(vdi)?.ToString() ?? "another program"}",
                "detach it, or, when its guest has unmounted it, say --live");
        RollbackRequest request = new(name.Snapshot, IsLive: whileUsed);
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
    public Task<long> CollectAsync() => new StoreCollection(_store, _worker, _opening(false)).RunAsync();

    /// <summary>Gives back what only deleted VDIs needed; gives the number of bytes.</summary>
    public async Task<long> CollectDeletedAsync()
    {
        Collector collector = new(_store, _opening(false).Warn) { Patience = Collector.CommandPatience };
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
        new VdiChecker(_store, readsData, onDamage).Run(name);

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

    private VdiDescriber Describer => new(_store, _opening(true).Warn);

    private async Task<TReply> AskOrDoAsync<TRequest, TReply>(
        string name, VdiHandler<TRequest, TReply> handler, TRequest request)
        where TRequest : VdiRequest
        where TReply : VdiReply
    {
        VdiImage? image;
        using (VdiWait wait = new())
        {
            for (int misses = 0; ;)
            {
                uint vdi = _store.Find(name);
                if (await VdiSocket.TryAskAsync(_store, vdi, handler, request, wait).ConfigureAwait(false) is { } reply)
                    return reply;
                // A process that is opening or closing the VDI does not answer.
                image = TryOpen(name, () => !wait.IsOver && (_store.IsWritten(vdi) || misses++ == 0));
                if (image is not null) break;
                await wait.PauseAsync().ConfigureAwait(false);
            }
        }

        // Nothing of this is tried again.
        await using (image.ConfigureAwait(false))
            return await handler.RunAsync(
                request, new VdiHolder(_store, image, _opening(false).Warn, IsInUse: false)).ConfigureAwait(false);
    }

    // Null if another process has it, and it is to be tried again.
    private VdiImage? TryOpen(string name, Func<bool> mayTryAgain)
    {
        try
        {
            return OpenToWrite(name);
        }
        catch (ImageInUseException) when (mayTryAgain())
        {
            return null;
        }
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

    private VdiImage OpenToWrite(string name)
    {
        VdiImage image = VdiOpener.Open(_store, new VdiName(name, null), "none", _opening(false));
        image.UseOn(_worker);
        return image;
    }
}
