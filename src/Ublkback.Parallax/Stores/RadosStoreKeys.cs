using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// The block and the keys of a store in a pool. The object <c>vdi.store</c> has them, and so has <c>vdi.store.copy</c>.
/// Any thread; blocks it.
/// </summary>
/// <remarks>
/// A key is added to the first object first, and removed from it last. So after a crash only the copy may lack a key. A
/// name is the exception: it is removed from the first object first, which gets a key <c>deleted.NUMBER</c> in the same
/// operation. Names of such a number are ignored in both objects, because either may be an older version of itself.
/// </remarks>
internal sealed class RadosStoreKeys(RadosPool pool)
{
    /// <summary>Keys of names, whose values are numbers of VDIs.</summary>
    public const string NamePrefix = "name.";

    /// <summary>Keys of the numbers of all VDIs, those without names too.</summary>
    public const string NumberPrefix = "vdi.";

    private const string DeletedPrefix = "deleted.";

    /// <summary>The first of the two objects, whose locks are those of the store.</summary>
    public static RadosName Object => StructureFence.Object;

    private static RadosName Copy => StructureFence.Copy;

    /// <summary>Reads the identity of the store; null if there is none.</summary>
    /// <exception cref="TargetException">It is damaged.</exception>
    public static Guid? ReadId(RadosPool pool)
    {
        byte[] block = new byte[VdiFormat.BlockSize], copy = new byte[VdiFormat.BlockSize];
        int first = pool.Read(Object, 0, block), second = pool.Read(Copy, 0, copy);
        return first < 0 && second < 0
            ? null
            : StoreBlock.Read(block, copy, $"object {Object} of pool {pool.Name}");
    }

    /// <summary>Makes a store, unless there is one.</summary>
    public static void Make(RadosPool pool, string key, string value)
    {
        byte[] block = StoreBlock.Make(Guid.NewGuid());
        using RadosWrite write = new RadosWrite().Create().Write(0, block).SetKey(key, value);
        int result = pool.TryChange(Object, write);
        if (result == -LinuxError.Exists) return;
        RadosException.Check(result, $"no store can be made in the pool {pool.Name}");
        using RadosWrite second = new RadosWrite().Create().Write(0, block).SetKey(key, value);
        result = pool.TryChange(Copy, second);
        // Who uses the store already, since this process was stopped, has made it; then it is repaired by fsck.
        if (result != -LinuxError.Exists) RadosException.Check(result, $"object {Copy} cannot be made");
    }

    /// <summary>All keys that begin with a prefix, in order.</summary>
    public IEnumerable<KeyValuePair<string, string>> GetAll(string prefix) =>
        pool.GetKeys(Object, prefix).Concat(pool.GetKeys(Copy, prefix)).DistinctBy(pair => pair.Key)
            .OrderBy(pair => pair.Key, StringComparer.Ordinal);

    /// <summary>The keys of all names, in order.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> GetNames()
    {
        IReadOnlyList<KeyValuePair<string, string>> names = pool.GetKeys(Object, NamePrefix);
        IReadOnlyList<KeyValuePair<string, string>> copies = pool.GetKeys(Copy, NamePrefix);
        if (names.SequenceEqual(copies)) return names;
        HashSet<string> deleted = ReadDeleted();
        return
        [
            .. names.Concat(copies).Where(pair => !deleted.Contains(pair.Value)).DistinctBy(pair => pair.Key)
                .OrderBy(pair => pair.Key, StringComparer.Ordinal),
        ];
    }

    /// <summary>The value of the key of a name; null when it is not there.</summary>
    /// <exception cref="TargetException">The two objects have different values.</exception>
    public string? GetName(string key)
    {
        string? value = Read(Object, key), copy = Read(Copy, key);
        if (value != copy)
        {
            HashSet<string> deleted = ReadDeleted();
            if (value is not null && deleted.Contains(value)) value = null;
            if (copy is not null && deleted.Contains(copy)) copy = null;
        }

        return value is null || copy is null || value == copy
            ? value ?? copy
            : throw new TargetException(
                $"key {key} is '{value}' in object {Object} of pool {pool.Name} and '{copy}' in {Copy}",
                "correct the one that is wrong with 'rados setomapval'");
    }

    /// <summary>
    /// The higher one of a number in both objects, and what the first one has, to be a condition. After a crash the
    /// copy may have a lower one.
    /// </summary>
    public (string Highest, string First) GetHighest(string key)
    {
        string first = Read(Object, key) ?? "", copy = Read(Copy, key) ?? "";
        bool isCopyHigher = copy.Length > first.Length
            || (copy.Length == first.Length && string.CompareOrdinal(copy, first) > 0);
        return (isCopyHigher ? copy : first, first);
    }

    /// <summary>Sets keys; 0, or a negative error number if the condition of the write did not hold.</summary>
    /// <param name="structure">The number of the lock that the change needs.</param>
    /// <param name="write">The condition and the changes of the first object.</param>
    /// <param name="pairs">What is set.</param>
    public int TrySet(byte[] structure, RadosWrite write, params (string Key, string Value)[] pairs)
    {
        using RadosWrite second = new RadosWrite().IfAttribute(StructureFence.Attribute, structure);
        foreach ((string key, string value) in pairs)
        {
            write.SetKey(key, value);
            second.SetKey(key, value);
        }

        int result = pool.TryChange(Object, write.IfAttribute(StructureFence.Attribute, structure));
        if (result < 0) return result;
        result = pool.TryChange(Copy, second);
        // The first one counts. Without the lock the copy is the next one's, who repairs it.
        return result == -LinuxError.Cancelled ? 0 : result;
    }

    /// <summary>
    /// Takes a name away from a VDI, if it has that; 0, or a negative error number if the lock is another's now.
    /// </summary>
    /// <param name="structure">The number of the lock that the change needs.</param>
    /// <param name="key">The key of the name.</param>
    /// <param name="number">The VDI's number.</param>
    public int TryUnlink(byte[] structure, string key, string number)
    {
        int result = 0;
        foreach (RadosName name in new[] { Object, Copy })
        {
            using RadosWrite write = new RadosWrite().IfAttribute(StructureFence.Attribute, structure)
                .SetKey(DeletedPrefix + number, "");
            if (Read(name, key) == number) write.RemoveKey(key);
            int done = pool.TryChange(name, write, isForced: true);
            if (name == Copy) break; // the first one counts, and the collector ends it
            result = done;
            if (done < 0) break;
        }

        return result;
    }

    /// <summary>
    /// Removes all keys of a VDI that has no name; 0, or a negative error number if the lock is another's now.
    /// </summary>
    /// <param name="structure">The number of the lock that the change needs.</param>
    /// <param name="number">The VDI's number.</param>
    public int TryRemove(byte[] structure, string number)
    {
        int result = 0;
        foreach (RadosName name in new[] { Copy, Object })
        {
            using RadosWrite write = new RadosWrite().IfAttribute(StructureFence.Attribute, structure)
                .RemoveKey(NumberPrefix + number).RemoveKey(DeletedPrefix + number);
            foreach (KeyValuePair<string, string> left in pool.GetKeys(name, NamePrefix))
            {
                if (left.Value == number) write.RemoveKey(left.Key);
            }

            if (result >= 0) result = pool.TryChange(name, write, isForced: true);
        }

        return result;
    }

    /// <summary>
    /// Compares the two objects, and makes them the same again if asked; 0, or a negative error number if the lock is
    /// another's now.
    /// </summary>
    public int Check(byte[] structure, Guid id, Action<string> onFault, bool repairs)
    {
        HashSet<string> deleted = ReadDeleted(), named = [.. GetNames().Select(pair => pair.Value)];
        foreach ((RadosName name, RadosName other) in new[] { (Object, Copy), (Copy, Object) })
        {
            byte[] block = new byte[VdiFormat.BlockSize];
            using RadosWrite write = new RadosWrite().IfAttribute(StructureFence.Attribute, structure);
            bool isChanged = pool.Read(name, 0, block) < 0 || StoreBlock.TryRead(block) != id;
            if (isChanged) onFault($"object {name} of pool {pool.Name} is damaged or missing; its copy has the same");
            if (isChanged) write.Write(0, StoreBlock.Make(id));
            IReadOnlyList<KeyValuePair<string, string>> keys = pool.GetKeys(name, "");
            HashSet<string> known = [.. keys.Select(pair => pair.Key)];
            foreach ((string key, string value) in keys)
            {
                if (!key.StartsWith(NamePrefix, StringComparison.Ordinal) || !deleted.Contains(value)) continue;
                // The copy loses it last.
                if (name == Object) onFault($"key {key} of object {name} of pool {pool.Name} names a deleted VDI");
                write.RemoveKey(key);
                known.Remove(key); // the name may be another VDI's now
                isChanged = true;
            }

            foreach ((string key, string value) in pool.GetKeys(other, "").Where(pair => !known.Contains(pair.Key)))
            {
                if (key.StartsWith(NamePrefix, StringComparison.Ordinal) && deleted.Contains(value)) continue;
                // What was not ended of a VDI without a name, the collector ends: it is no damage.
                bool isLeft = key.StartsWith(DeletedPrefix, StringComparison.Ordinal)
                    || (key.StartsWith(NumberPrefix, StringComparison.Ordinal)
                        && !named.Contains(key[NumberPrefix.Length..]));
                if (!isLeft) onFault($"key {key} of object {name} of pool {pool.Name} is missing; its copy has it");
                write.SetKey(key, value);
                isChanged = true;
            }

            int result = isChanged && repairs ? pool.TryChange(name, write) : 0;
            if (result < 0) return result;
        }

        return 0;
    }

    private HashSet<string> ReadDeleted() =>
        [.. GetAll(DeletedPrefix).Select(pair => pair.Key[DeletedPrefix.Length..])];

    private string? Read(RadosName name, string key) =>
        pool.GetKeys(name, key).FirstOrDefault(pair => pair.Key == key).Value;
}
