using System.Collections.Concurrent;
using System.Globalization;
using Ublkback.Block;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// VDIs in a pool of a Ceph cluster, for many hosts: the object <c>vdi.store</c> has their names as keys,
/// <c>vdi.NUMBER.SEGMENT</c> are their segments. Any thread; blocks it.
/// </summary>
internal sealed class RadosStore : IVdiStore
{
    private const string NamePrefix = "name.";
    private const string NumberPrefix = "vdi.";
    private const string NextKey = "next";

    private static readonly TimeSpan TaskTime = TimeSpan.FromHours(1); // for compacting, and collecting

    private readonly RadosPool _pool;
    private readonly RadosStoreKeys _keys;
    private readonly ConcurrentDictionary<uint, WriterLock> _owners = new(); // the VDIs that are open here

    private RadosStore(RadosPool pool, Guid id)
    {
        _pool = pool;
        _keys = new RadosStoreKeys(pool);
        Id = id;
    }

    public string Description => $"rados:{_pool.Name}";

    public Guid Id { get; }

    public IReadOnlyList<string> Names =>
        [.. Guarded(() => _keys.GetAll(NamePrefix).ToList()).Select(key => key.Key[NamePrefix.Length..])
            .Order(StringComparer.Ordinal)];

    public IReadOnlyList<uint> Numbers =>
        [.. Guarded(() => _keys.GetAll(NumberPrefix).ToList())
            .Select(key => ParseNumber(key.Key[NumberPrefix.Length..])).Order()];

    /// <summary>Opens the store in a pool.</summary>
    /// <param name="address">The pool.</param>
    /// <param name="makes">Whether a new one is made if there is none.</param>
    /// <exception cref="TargetException">There is none, or the cluster cannot be reached.</exception>
    public static RadosStore Open(RadosAddress address, bool makes = false)
    {
        RadosPool pool = RadosPool.Open(address, waitsIfFull: false);
        try
        {
            if (Guarded(() => RadosStoreKeys.ReadId(pool)) is Guid known) return new RadosStore(pool, known);
            if (!makes)
                throw new TargetException($"there is no store of VDIs in the pool {address.Pool}: 'ublkback vdi "
                    + $"create --store {address}' makes one");
            RadosStoreKeys.Make(pool, NextKey, "1");
            return new RadosStore(pool, RadosStoreKeys.ReadId(pool)!.Value);
        }
        catch (Exception failure)
        {
            pool.Dispose();
            throw failure is RadosException ? new TargetException(failure.Message, failure) : failure;
        }
    }

    public uint Find(string name)
    {
        string key = NamePrefix + VdiName.Check(name);
        string? number = Guarded(() => _keys.Get(key));
        if (number is null) throw new NoSuchVdiException(name, Description);
        uint vdi = ParseNumber(number);
        string? called = Guarded(() => RadosContainer.ReadName(_pool, vdi));
        return called is null || called == name
            ? vdi
            : throw new TargetException(
                $"key {key} of the pool {_pool.Name} is VDI {number}, which is called {called}: the key is damaged",
                "correct it with 'rados setomapval', or remove it");
    }

    public bool Exists(uint vdi) => Guarded(() => _pool.Measure(new RadosSegments(vdi).First)) >= 0;

    public long MeasureUsage(uint vdi) => Guarded(() =>
    {
        RadosSegments segments = new(vdi);
        return OpenUnguarded(vdi, _ => { }).FindUsedSegments().Prepend(0)
            .Sum(segment => Math.Max(0, _pool.Measure(segments.Of(segment))));
    });

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
            if (opening.IsReadOnly) return new RadosContainer(_pool, vdi, null, Read(first, claim), opening.Warn);
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

    public IDisposable Pin(uint vdi, ulong snapshot) => Guarded(() =>
        RadosLease.TryTake(_pool, new RadosSegments(vdi).First, PinOf(snapshot), isShared: true)
            ?? throw new TargetException("the snapshot is being deleted"));

    public IDisposable? TryForbidPins(uint vdi, ulong snapshot) =>
        Guarded(() => RadosLease.TryTake(_pool, new RadosSegments(vdi).First, PinOf(snapshot), isShared: false));

    public bool IsWritten(uint vdi) =>
        Guarded(() => WriterTakeover.Find(_pool, new RadosSegments(vdi).First)) is not null;

    public WriterRecord? ReadHolder(uint vdi)
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        return Guarded(() => _pool.Read(new RadosSegments(vdi).First, VdiFormat.OffsetOf(VdiFormat.HolderBlock), block))
            == block.Length ? WriterRecord.TryRead(block) : null;
    }

    public IDisposable LockStructure() => LockStore("structure", "another command changes the VDIs of");

    public IDisposable LockCollection() =>
        LockStore("collection", "somebody is looking already for what is not needed any more in");

    public void Create(
        string name, Func<uint, VdiVersion> content, string origin, bool isUnfinished) => Guarded(() =>
    {
        string nameKey = NamePrefix + VdiName.Check(name);
        (string next, string condition) = _keys.GetHighest(NextKey);
        uint vdi = ParseNumber(next);
        if (_keys.Get(nameKey) is not null)
            throw new TargetException($"there is a VDI {name} already in {Description}", "choose another name");
        VdiSuperblock superblock = new(Id, vdi, Guid.NewGuid(), DateTimeOffset.UtcNow.ToUnixTimeMilliseconds(), name);
        byte[] blocks = VdiMetadata.Make(superblock, content(vdi), origin, isUnfinished);
        using RadosWrite number = new RadosWrite().IfKey(NextKey, condition);
        RadosException.Check(
            _keys.TrySet(number, (NextKey, $"{vdi + 1:x}"), (KeyOf(vdi), "")),
            $"object {RadosStoreKeys.Object} cannot be changed");
        RadosContainer.Make(_pool, vdi, blocks, VdiMetadata.MakeCopy(superblock, blocks));
        using RadosWrite named = new RadosWrite().IfKey(nameKey, "");
        int result = _keys.TrySet(named, (nameKey, FormatNumber(vdi)));
        if (result >= 0) return true;
        Remove(vdi);
        throw new TargetException(
            $"VDI {name} cannot be made: {new RadosException(-result, "its name cannot be set").Message}");
    });

    public void Unlink(string name) => Guarded(() =>
    {
        _keys.Remove(NamePrefix + VdiName.Check(name));
        return true;
    });

    public void CheckCopies(Action<string> onFault, bool repairs) => Guarded(() =>
    {
        _keys.Check(Id, onFault, repairs);
        foreach (uint vdi in Numbers)
        {
            if (Exists(vdi)) continue;
            onFault($"object {new RadosSegments(vdi).First} of pool {_pool.Name} is missing");
            if (repairs) RadosContainer.RestoreFirst(_pool, vdi); // when its copy is there
        }

        return true;
    });

    public void Remove(uint vdi) => Guarded(() =>
    {
        RadosContainer container = OpenUnguarded(vdi, _ => { });
        foreach (long segment in container.FindUsedSegments().Append(0)) container.Free([BlockRun.OfSegment(segment)]);
        using RadosWrite copy = new RadosWrite().Remove();
        _ = _pool.TryChange(new RadosSegments(vdi).Copy, copy); // it may be gone
        _keys.Remove(KeyOf(vdi));
        return true;
    });

    public IDisposable Listen(uint vdi, MessageDispatcher requests)
    {
        WriterLock owner = _owners[vdi];
        owner.Requests = requests;
        return new Ending(() =>
        {
            owner.Requests = null;
            _owners.TryRemove(vdi, out _);
        });
    }

    public async Task<byte[]?> TryAskAsync(uint vdi, byte[] request)
    {
        RadosName first = new RadosSegments(vdi).First;
        return await Task.Run(() => Guarded(() =>
        {
            if (WriterTakeover.Find(_pool, first) is not { } holder || !WriterTakeover.IsAlive(_pool, holder))
                return null;
            (IReadOnlyList<byte[]> answers, int silent) =
                RadosWatch.Notify(_pool, WriterTakeover.DoorOf(holder.Cookie), request, TaskTime);
            if (silent > 0)
                throw new TargetException(
                    "the process that holds the VDI did not reply",
                    "check whether the command was carried out, and try again");
            return answers is [byte[] reply, ..] ? reply : null;
        })).ConfigureAwait(false);
    }

    public void Dispose() => _pool.Dispose();

    private RadosClaim Claim(string name, uint vdi, bool replacesSilent, Action<string> warn) =>
        new(name, replacesSilent, () => ReadHolder(vdi)?.ToString() ?? "another program", warn);

    private RadosLease Read(RadosName first, RadosClaim claim)
    {
        while (true)
        {
            if (RadosLease.TryTake(_pool, first, WriterLock.LockName, isShared: true) is { } lease) return lease;
            WriterTakeover.Replace(_pool, first, claim);
        }
    }

    private RadosContainer OpenUnguarded(uint vdi, Action<string> warn) => new(_pool, vdi, null, null, warn);

    private RadosLease LockStore(string name, string what)
    {
        TimeSpan delay = TimeSpan.FromMilliseconds(20);
        TimeSpan patience = RadosLease.Time + WriterTakeover.Patience; // of one that died
        RadosName store = RadosStoreKeys.Object;
        for (TimeSpan waited = default; waited < patience; waited += delay)
        {
            if (Guarded(() => RadosLease.TryTake(_pool, store, name, isShared: false)) is { } lease) return lease;
            Thread.Sleep(delay);
        }

        throw new ImageInUseException(
            $"{what} {Description}, and has not ended for {patience.TotalSeconds:0} s", "try again later");
    }

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

    private uint ParseNumber(string text) =>
        uint.TryParse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint vdi)
            && vdi is > 0 and <= BlockAddress.MaxVdi
            ? vdi
            : throw new TargetException($"object {RadosStoreKeys.Object} of pool {_pool.Name} says '{text}' where the "
                + "number of a VDI should be: it is damaged");

    private static string FormatNumber(uint vdi) => vdi.ToString("x6", CultureInfo.InvariantCulture);

    private static string KeyOf(uint vdi) => NumberPrefix + FormatNumber(vdi);

    private static string PinOf(ulong snapshot) =>
        string.Create(CultureInfo.InvariantCulture, $"snapshot.{snapshot:x}");

    private sealed class Ending(Action action) : IDisposable
    {
        public void Dispose() => action();
    }
}
