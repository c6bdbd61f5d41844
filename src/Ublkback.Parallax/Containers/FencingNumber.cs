using System.Globalization;
using System.Text;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>Adds a condition to a change. It may throw when the change must not be made.</summary>
internal delegate void WriteCondition(RadosWrite write);

/// <summary>
/// The fencing number of a lock in a pool: an attribute of the lock's object and of that object's copy. The process
/// that takes the lock raises the number. Each change that the lock protects names it, and the OSD refuses the change
/// if the object has another number. So a process that was stopped and lost the lock changes nothing. Any thread;
/// blocks it.
/// </summary>
internal static class FencingNumber
{
    private const int Digits = 16;

    /// <summary>Formats a number. Texts sort in the order of their numbers.</summary>
    public static byte[] Format(ulong number) =>
        Encoding.ASCII.GetBytes(number.ToString("x16", CultureInfo.InvariantCulture));

    /// <summary>Parses a text; null if it is not a number.</summary>
    public static ulong? Read(byte[]? text) =>
        text?.Length == Digits && ulong.TryParse(
            Encoding.ASCII.GetString(text), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ulong number)
            ? number
            : null;

    /// <summary>
    /// Raises the number of a lock that this process holds, and returns the new one. Null if the process no longer
    /// holds the lock.
    /// </summary>
    /// <param name="pool">The pool.</param>
    /// <param name="held">The lock.</param>
    /// <param name="copy">
    /// The copy of the lock's object. If one of the two is restored from an old version, the other keeps the number.
    /// </param>
    /// <param name="attribute">The attribute that has the number.</param>
    /// <param name="mustBeKnown">True if a missing number is damage.</param>
    /// <param name="condition">Adds further conditions; null for none.</param>
    /// <exception cref="TargetException">The number is damaged.</exception>
    /// <exception cref="RadosException">It cannot be raised.</exception>
    public static byte[]? TryRaise(
        RadosPool pool, RadosLockName held, RadosName copy, ReadOnlySpan<byte> attribute, bool mustBeKnown,
        WriteCondition? condition)
    {
        while (true)
        {
            byte[]? old = pool.GetAttribute(held.On, attribute);
            ulong? known = Read(old), copied = Read(pool.GetAttribute(copy, attribute));
            if (known is null && copied is null && mustBeKnown)
                throw new TargetException($"{held.On} of pool {pool.Name} has no valid epoch: it is damaged");
            byte[] next = Format(Math.Max(known ?? 0, copied ?? 0) + 1);
            int result;
            using (RadosWrite write = new RadosWrite().IfHeld(held).IfAttribute(attribute, old ?? [])
                .SetAttribute(attribute, next))
            {
                condition?.Invoke(write);
                result = pool.TryChange(held.On, write, isForced: true);
            }

            if (result == -LinuxError.Cancelled) continue; // something of that has changed
            if (result == -LinuxError.Busy) return null;
            RadosException.Check(result, $"object {held.On} cannot be changed");
            RaiseCopy(pool, held.On, copy, attribute, next);
            return next;
        }
    }

    private static void RaiseCopy(
        RadosPool pool, RadosName first, RadosName copy, ReadOnlySpan<byte> attribute, byte[] number)
    {
        int result;
        do
        {
            using (RadosWrite write = new RadosWrite().IfExists().IfAttributeNotAbove(attribute, number)
                .SetAttribute(attribute, number))
                result = pool.TryChange(copy, write, isForced: true);
            if (result != -LinuxError.NoEntry) break;
            using (RadosWrite write = new RadosWrite().Create().SetAttribute(attribute, number))
                result = pool.TryChange(copy, write, isForced: true);
            if (result >= 0) RemoveIfLost(pool, first, copy, attribute, number);
        }
        while (result == -LinuxError.Exists);
        // If it is not below that of the copy, another process has the lock, and nothing of ours is taken.
        if (result != -LinuxError.Cancelled) RadosException.Check(result, $"object {copy} cannot be changed");
    }

    // Who has the lock now may have removed both objects, and would not find the one that was created since.
    private static void RemoveIfLost(
        RadosPool pool, RadosName first, RadosName copy, ReadOnlySpan<byte> attribute, byte[] number)
    {
        if (pool.GetAttribute(first, attribute) is byte[] now && now.AsSpan().SequenceEqual(number)) return;
        using RadosWrite write =
            new RadosWrite().IfAttribute(attribute, number).IfZeros(0, VdiFormat.BlockSize).Remove();
        _ = pool.TryChange(copy, write, isForced: true); // or somebody uses it
    }
}
