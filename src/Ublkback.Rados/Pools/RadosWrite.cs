using System.Runtime.InteropServices;
using System.Text;
using Ublkback.Rados.Bindings;

namespace Ublkback.Rados.Pools;

/// <summary>
/// Changes to one object that are made all or none. To be disposed by who makes it. Any thread, one at a time.
/// </summary>
public readonly unsafe ref struct RadosWrite : IDisposable
{
    private const byte Equal = 1; // LIBRADOS_CMPXATTR_OP_EQ
    private const byte NotBelow = 4; // LIBRADOS_CMPXATTR_OP_GTE

    /// <summary>Makes one without changes.</summary>
    public RadosWrite() => Handle = LibRados.CreateWrite();

    internal nint Handle { get; }

    /// <summary>Only if the object is there.</summary>
    public RadosWrite IfExists()
    {
        LibRados.AssertExists(Handle);
        return this;
    }

    /// <summary>Only if an attribute has a value.</summary>
    public RadosWrite IfAttribute(ReadOnlySpan<byte> name, ReadOnlySpan<byte> value) => Compare(name, Equal, value);

    /// <summary>Only if a value is not below that of an attribute, in the order of their bytes.</summary>
    public RadosWrite IfAttributeNotAbove(ReadOnlySpan<byte> name, ReadOnlySpan<byte> value) =>
        Compare(name, NotBelow, value);

    /// <summary>Only if a key has a value; an empty one if it is not there.</summary>
    public RadosWrite IfKey(string key, string value)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(value);
        fixed (byte* first = bytes) LibRados.CompareKey(Handle, key, Equal, first, (nuint)bytes.Length, null);
        return this;
    }

    /// <summary>Only if there are zeros, or nothing.</summary>
    public RadosWrite IfZeros(long offset, int length)
    {
        byte[] zeros = new byte[length];
        fixed (byte* first = zeros) LibRados.CompareContent(Handle, first, (nuint)length, (ulong)offset, null);
        return this;
    }

    /// <summary>Has the OSD call a method of one of its classes, which may refuse all of this.</summary>
    internal RadosWrite Execute(string className, string method, ReadOnlySpan<byte> input)
    {
        fixed (byte* first = input) LibRados.Execute(Handle, className, method, first, (nuint)input.Length, null);
        return this;
    }

    /// <summary>Makes the object, which must not be there.</summary>
    public RadosWrite Create()
    {
        LibRados.Create(Handle, LibRados.CreateExclusive, 0);
        return this;
    }

    /// <summary>Sets an attribute.</summary>
    public RadosWrite SetAttribute(ReadOnlySpan<byte> name, ReadOnlySpan<byte> value)
    {
        fixed (byte* attribute = name, first = value)
            LibRados.SetAttribute(Handle, attribute, first, (nuint)value.Length);
        return this;
    }

    /// <summary>Removes an attribute.</summary>
    public RadosWrite RemoveAttribute(ReadOnlySpan<byte> name)
    {
        fixed (byte* attribute = name) LibRados.RemoveAttribute(Handle, attribute);
        return this;
    }

    /// <summary>Writes bytes; they are copied.</summary>
    public RadosWrite Write(long offset, ReadOnlySpan<byte> content)
    {
        fixed (byte* first = content) LibRados.Write(Handle, first, (nuint)content.Length, (ulong)offset);
        return this;
    }

    /// <summary>
    /// Sets the object's length; what is new reads as zeros and takes no space but of the pool's quota.
    /// </summary>
    public RadosWrite SetLength(long length)
    {
        LibRados.Truncate(Handle, (ulong)length);
        return this;
    }

    /// <summary>Makes bytes zeros, and gives back what held them.</summary>
    public RadosWrite Zero(long offset, long length)
    {
        LibRados.Zero(Handle, (ulong)offset, (ulong)length);
        return this;
    }

    /// <summary>Removes the object.</summary>
    public RadosWrite Remove()
    {
        LibRados.Remove(Handle);
        return this;
    }

    /// <summary>Sets a key.</summary>
    public RadosWrite SetKey(string key, string value)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(value);
        nint name = Marshal.StringToCoTaskMemUTF8(key);
        byte* keyAt = (byte*)name;
        nuint length = (nuint)bytes.Length;
        fixed (byte* first = bytes)
        {
            byte* valueAt = first is null ? keyAt : first; // an empty value has no address
            LibRados.SetKeys(Handle, &keyAt, &valueAt, &length, 1);
        }

        Marshal.FreeCoTaskMem(name);
        return this;
    }

    /// <summary>Removes a key.</summary>
    public RadosWrite RemoveKey(string key)
    {
        nint name = Marshal.StringToCoTaskMemUTF8(key);
        byte* keyAt = (byte*)name;
        LibRados.RemoveKeys(Handle, &keyAt, 1);
        Marshal.FreeCoTaskMem(name);
        return this;
    }

    /// <inheritdoc/>
    public void Dispose() => LibRados.ReleaseWrite(Handle);

    private RadosWrite Compare(ReadOnlySpan<byte> name, byte comparison, ReadOnlySpan<byte> value)
    {
        fixed (byte* attribute = name, first = value)
            LibRados.CompareAttribute(Handle, attribute, comparison, first, (nuint)value.Length);
        return this;
    }
}
