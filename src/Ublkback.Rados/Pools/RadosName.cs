using System.Text;

namespace Ublkback.Rados.Pools;

/// <summary>The name of an object, as librados wants it.</summary>
public sealed class RadosName
{
    private readonly byte[] _bytes;

    /// <summary>Makes one.</summary>
    public RadosName(string text)
    {
        Text = text;
        _bytes = [.. Encoding.UTF8.GetBytes(text), 0];
    }

    /// <summary>The name.</summary>
    public string Text { get; }

    /// <summary>The name, and a zero.</summary>
    internal ReadOnlySpan<byte> Bytes => _bytes;

    /// <inheritdoc/>
    public override string ToString() => Text;
}
