using System.Globalization;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>Creates the VDIs of a pool, and removes their objects. Any thread; blocks it.</summary>
/// <remarks>
/// The number is noted first, then the objects are made, then the name. So whatever ends it, there is no name without
/// a VDI, and the collector finds by the number what is left.
/// </remarks>
/// <param name="pool">The pool.</param>
/// <param name="keys">The keys of the store.</param>
/// <param name="store">The store's identity.</param>
internal sealed class RadosVdis(RadosPool pool, RadosStoreKeys keys, Guid store)
{
    /// <summary>The key that has the number of the next VDI.</summary>
    public const string NextKey = "next";

    /// <summary>Reads a number that a key has.</summary>
    /// <exception cref="TargetException">It is damaged.</exception>
    public static uint ParseNumber(RadosPool pool, string text) =>
        uint.TryParse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint vdi)
            && vdi is > 0 and <= BlockAddress.MaxVdi
            ? vdi
            : throw new TargetException($"object {RadosStoreKeys.Object} of pool {pool.Name} says '{text}' where the "
                + "number of a VDI should be: it is damaged");

    /// <summary>A number as keys have it.</summary>
    public static string FormatNumber(uint vdi) => vdi.ToString("x6", CultureInfo.InvariantCulture);

    /// <summary>The key of a name.</summary>
    public static string NameKeyOf(string name) => RadosStoreKeys.NamePrefix + VdiName.Check(name);

    /// <summary>As <see cref="IVdiStore.Create"/>.</summary>
    /// <exception cref="RadosException">It cannot be made.</exception>
    public void Create(
        RadosStoreLock structure, string name, Func<uint, VdiVersion> content, string origin, bool isUnfinished)
    {
        string nameKey = NameKeyOf(name);
        (string next, string condition) = keys.GetHighest(NextKey);
        if (next == $"{BlockAddress.MaxVdi + 1:x}")
            throw new TargetException($"rados:{pool.Name} has had as many VDIs as a store can");
        uint vdi = ParseNumber(pool, next);
        if (keys.GetName(nameKey) is not null)
            throw new TargetException($"there is a VDI {name} already in rados:{pool.Name}", "choose another name");
        long now = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds();
        VdiSuperblock superblock = new(store, vdi, Guid.NewGuid(), now, name);
        byte[] blocks = VdiMetadata.Make(superblock, content(vdi), origin, isUnfinished);
        using RadosWrite number = new RadosWrite().IfKey(NextKey, condition);
        structure.Need(keys.TrySet(structure.Number, number, (NextKey, $"{vdi + 1:x}"),
            (RadosStoreKeys.NumberPrefix + FormatNumber(vdi), "")));
        bool mayBeNamed = false;
        try
        {
            RadosContainer.Make(pool, vdi, blocks, VdiMetadata.MakeCopy(superblock, blocks));
            using RadosWrite named = new RadosWrite().IfKey(nameKey, "");
            mayBeNamed = true;
            int result = keys.TrySet(structure.Number, named, (nameKey, FormatNumber(vdi)));
            mayBeNamed = result != -LinuxError.Cancelled;
            structure.Need(result);
        }
        catch (Exception failure) when (failure is RadosException or TargetException)
        {
            if (failure is not RadosException { Errno: LinuxError.Exists })
                TakeBack(structure.Number, mayBeNamed ? nameKey : null, vdi);
            throw new TargetException($"VDI {name} cannot be made: {failure.Message}", failure);
        }
    }

    /// <summary>Removes the objects of a VDI that nothing refers to.</summary>
    /// <exception cref="RadosException">
    /// They cannot be found, or not removed. Those that say which objects there are stay then.
    /// </exception>
    public void RemoveObjects(uint vdi)
    {
        RadosSegments segments = new(vdi);
        RadosContainer container = new(pool, vdi, null, null, _ => { });
        foreach (long segment in container.FindUsedSegments()) Remove(segments.Of(segment));
        Remove(segments.Copy);
        Remove(segments.First); // last, so that it is not missing before all is
        Remove(segments.Copy); // again, since a creation that was stopped for long may have made it meanwhile
    }

    private void Remove(RadosName name)
    {
        using RadosWrite write = new RadosWrite().Remove();
        int result = pool.TryChange(name, write, isForced: true);
        if (result != -LinuxError.NoEntry) RadosException.Check(result, $"object {name} cannot be removed");
    }

    // The name goes first. While it may be there, all below it stays. What is left, the collector removes.
    private void TakeBack(byte[] structure, string? nameKey, uint vdi)
    {
        try
        {
            if (nameKey is not null && keys.TryUnlink(structure, nameKey, FormatNumber(vdi)) < 0) return;
            RemoveObjects(vdi);
            _ = keys.TryRemove(structure, FormatNumber(vdi));
        }
        catch (RadosException)
        {
            // Why it was not made is said.
        }
    }
}
