using System.Collections.Concurrent;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// VDIs in a pool of a Ceph cluster, for many hosts: the object <c>vdi.store</c> has their names as keys,
/// <c>vdi.NUMBER.SEGMENT</c> are their segments. Any thread; blocks it.
/// </summary>
internal sealed class RadosStore : IVdiStore
{
    private readonly RadosPool _pool;
    private readonly TimeSpan? _patience;
    private readonly RadosStoreKeys _keys;
    private readonly RadosVdis _vdis;
    private readonly RadosStoreLocks _locks;
    private readonly ConcurrentDictionary<uint, WriterLock> _owners = new(); // the VDIs that are open here

    private RadosStore(RadosPool pool, Guid id, TimeSpan? patience)
    {
        _pool = pool;
        _patience = patience;
        _keys = new RadosStoreKeys(pool);
        _vdis = new RadosVdis(pool, _keys, id);
        _locks = new RadosStoreLocks(pool, patience);
        Id = id;
    }

    public string Description => $"rados:{_pool.Name}";

    public Guid Id { get; }

    public IReadOnlyList<string> Names =>
        [.. Guarded(_keys.GetNames).Select(key => key.Key[RadosStoreKeys.NamePrefix.Length..])
            .Order(StringComparer.Ordinal)];

    public IReadOnlyList<uint> Numbers =>
        [.. Guarded(() => _keys.GetAll(RadosStoreKeys.NumberPrefix).ToList())
            .Select(key => RadosVdis.ParseNumber(_pool, key.Key[RadosStoreKeys.NumberPrefix.Length..])).Order()];

    /// <summary>Opens the store in a pool.</summary>
    /// <param name="address">The pool.</param>
    /// <param name="makes">Whether a new one is made if there is none.</param>
    /// <exception cref="TargetException">There is none, or the cluster cannot be reached.</exception>
    public static RadosStore Open(RadosAddress address, bool makes = false)
    {
        RadosPool pool = RadosPool.Open(address, waitsIfFull: false);
        try
        {
            if (ReadId(ref pool, address) is Guid known) return new RadosStore(pool, known, address.Timeout);
            if (!makes)
                throw new TargetException($"there is no store of VDIs in the pool {address.Pool}: 'ublkback vdi "
                    + $"create --store {address}' makes one");
            RadosStoreKeys.Make(pool, RadosVdis.NextKey, "1");
            return new RadosStore(pool, RadosStoreKeys.ReadId(pool)!.Value, address.Timeout);
        }
        catch (Exception failure)
        {
            pool.Dispose();
            throw failure is RadosException ? new TargetException(failure.Message, failure) : failure;
        }
    }

    // The connection that this process has may have been shut out; then there is a new one.
    private static Guid? ReadId(ref RadosPool pool, RadosAddress address)
    {
        try
        {
            return RadosStoreKeys.ReadId(pool);
        }
        catch (RadosException failure) when (failure.Errno == LinuxError.ShutOut)
        {
            RadosPool next = RadosPool.Open(address, waitsIfFull: false);
            pool.Dispose();
            pool = next;
            return RadosStoreKeys.ReadId(pool);
        }
    }

    public uint Find(string name)
    {
        string key = RadosVdis.NameKeyOf(name);
        string? number = Guarded(() => _keys.GetName(key));
        if (number is null) throw new NoSuchVdiException(name, Description);
        uint vdi = RadosVdis.ParseNumber(_pool, number);
        string? called = Guarded(() => RadosContainer.ReadName(_pool, vdi));
        return called is null || called == name
            ? vdi
            : throw new TargetException(
                $"key {key} of the pool {_pool.Name} is VDI {number}, which is called {called}: the key is damaged",
                "correct it with 'rados setomapval', or remove it");
    }

    public bool Exists(uint vdi) => Guarded(() => _pool.Measure(new RadosSegments(vdi).First)) >= 0;

    public long MeasureUsage(uint vdi) => Guarded(OpenUnguarded(vdi, _ => { }).Measure);

    public IVdiContainer OpenOwn(string name, string cache, ImageOpening opening)
    {
        uint vdi = Find(name);
        RadosName first = new RadosSegments(vdi).First;
        if (!Exists(vdi))
            throw new TargetException(
                $"object {first} of pool {_pool.Name} is not there, which VDI {name} begins with");
        // A guest that is to run here has been given up elsewhere; a command has no such right.
        RadosClaim claim = Claim(name, vdi, replacesSilent: opening.Domid is not null, opening.Warn);
        return Guarded(() =>
        {
            if (opening.IsReadOnly)
                return new RadosContainer(_pool, vdi, null, RadosReading.Take(_pool, first, claim), opening.Warn);
            WriterLock owner = WriterLock.Take(_pool, new RadosSegments(vdi), claim);
            try
            {
                RadosContainer container = new(_pool, vdi, owner, null, opening.Warn);
                container.Write(VdiFormat.HolderBlock, WriterRecord.ForThis(opening.Owner).ToBlock());
                _owners[vdi] = owner;
                return container;
            }
            catch
            {
                owner.Dispose();
                throw;
            }
        });
    }

    public void BreakLock(string name, Action<string> warn) => Guarded(() =>
    {
        uint vdi = Find(name);
        WriterLock.Take(_pool, new RadosSegments(vdi), Claim(name, vdi, replacesSilent: true, warn)).Dispose();
        return true;
    });

    public (IVdiContainer Container, VdiSuperblock Superblock) OpenOther(uint vdi, Action<string> warn)
    {
        RadosContainer container = OpenUnguarded(vdi, warn);
        return (container, Guarded(() => EssentialBlocks.Read(container).CheckPlace(Id, vdi, container.Path)));
    }

    public IVdiContainer OpenUnnamed(uint vdi, Action<string> warn) => OpenUnguarded(vdi, warn);

    public IDisposable Pin(uint vdi, ulong snapshot, Action<string> warn) =>
        Guarded(() => RadosPins.Pin(_pool, vdi, snapshot, warn));

    public IDisposable? TryForbidPins(uint vdi, ulong snapshot) =>
        Guarded(() => RadosPins.TryForbid(_pool, _owners.GetValueOrDefault(vdi), vdi, snapshot));

    // Who opens a VDI for writing raises its epoch.
    public string? ReadState(uint vdi) => Guarded(() => RadosClosed.ReadState(_pool, vdi));

    public IVdiContainer? TryOpenToCollect(uint vdi, string state, Action<string> warn) =>
        IsWritten(vdi) || ReadState(vdi) != state
            ? null
            : new RadosContainer(_pool, vdi, null, null, warn) { FreesUpTo = RadosClosed.EpochOf(state) };

    public bool IsWritten(uint vdi) =>
        Guarded(() => WriterTakeover.Find(_pool, new RadosSegments(vdi).First)) is not null;

    public WriterRecord? ReadHolder(uint vdi)
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        return Guarded(() => _pool.Read(new RadosSegments(vdi).First, VdiFormat.OffsetOf(VdiFormat.HolderBlock), block))
            == block.Length ? WriterRecord.TryRead(block) : null;
    }

    public IStoreLock LockStructure() => Guarded(_locks.LockStructure);

    public IStoreLock LockCollection(TimeSpan patience, CancellationToken cancellation) =>
        Guarded(() => _locks.LockCollection(patience, cancellation));

    public void Create(
        string name, Func<uint, VdiVersion> content, string origin, bool isUnfinished) => Guarded(() =>
    {
        _vdis.Create(_locks.Structure, name, content, origin, isUnfinished);
        return true;
    });

    public void Unlink(string name) => Guarded(() =>
    {
        RadosStoreLock structure = _locks.Structure;
        string key = RadosVdis.NameKeyOf(name);
        if (_keys.GetName(key) is string number)
            structure.Need(_keys.TryUnlink(structure.Number, key, number));
        return true;
    });

    public void CheckCopies(Action<string> onFault, bool repairs) => Guarded(() =>
    {
        RadosStoreLock structure = _locks.Structure;
        structure.Need(_keys.Check(structure.Number, Id, onFault, repairs));
        HashSet<string> named = [.. _keys.GetNames().Select(key => key.Value)];
        foreach (uint vdi in Numbers)
        {
            // A number without a name and without objects is what is left of a VDI that was not made; it is collected.
            RadosSegments segments = new(vdi);
            if (_pool.Measure(segments.First) > 0
                || (!named.Contains(RadosVdis.FormatNumber(vdi)) && _pool.Measure(segments.Copy) < 0))
                continue;
            onFault($"object {segments.First} of pool {_pool.Name} is missing");
            if (repairs) RadosClosed.RestoreFirst(_pool, segments, structure.Check); // when its copy is there
        }

        return true;
    });

    public void Remove(uint vdi) => Guarded(() =>
    {
        RadosStoreLock structure = _locks.Structure;
        _vdis.RemoveObjects(vdi);
        structure.Need(_keys.TryRemove(structure.Number, RadosVdis.FormatNumber(vdi)));
        return true;
    });

    public IDisposable BeginDeletion(uint vdi) => Guarded(() =>
    {
        RadosName first = new RadosSegments(vdi).First;
        byte[] structure = _locks.Structure.Number;
        return RadosDeletion.TryMark(_pool, _owners[vdi], first, structure)
            ? new EndingAction(() => RadosDeletion.Unmark(_pool, first, structure))
            : throw new ImageInUseException("another process has the VDI now", "try again later");
    });

    public IDisposable Listen(uint vdi, MessageDispatcher requests)
    {
        WriterLock owner = _owners[vdi];
        return new RadosListener(
            owner, requests, () => _owners.TryRemove(new KeyValuePair<uint, WriterLock>(vdi, owner)));
    }

    public Task<VdiDelivery> TryAskAsync(uint vdi, byte[] request) =>
        Task.Run(() => Guarded(() => RadosDoors.TryAsk(_pool, vdi, request, _patience)));

    public void Dispose()
    {
        _locks.Dispose();
        _pool.Dispose();
    }

    private RadosClaim Claim(string name, uint vdi, bool replacesSilent, Action<string> warn) =>
        new(name, replacesSilent, () => ReadHolder(vdi)?.ToString() ?? "another program", warn);

    private RadosContainer OpenUnguarded(uint vdi, Action<string> warn) => new(_pool, vdi, null, null, warn);

    private static T Guarded<T>(Func<T> action)
    {
        try
        {
            return action();
        }
        catch (RadosException failure)
        {
            throw new TargetException(failure.Message, failure);
        }
    }
}
