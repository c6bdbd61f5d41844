using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// Reads nodes of files that are far away in larger pieces: the nodes of a checkpoint lie beside each other. One thread
/// at a time; blocks it.
/// </summary>
internal sealed class NodeReadAhead
{
    private const int PieceBlocks = 64; // 256 KiB
    private const int MaxPieces = 64;

    private readonly Dictionary<(uint Vdi, long Piece), byte[]> _pieces = [];
    private readonly Queue<(uint Vdi, long Piece)> _order = new();

    /// <summary>
    /// Reads a node. False if it is not to be had so: its file is not far away, or the piece was read before the node
    /// was written, or the node is damaged.
    /// </summary>
    /// <exception cref="IOException">The piece cannot be read.</exception>
    public bool TryRead(IVdiContainer container, MapEntry at, Span<byte> node)
    {
        if (!container.IsRemote) return false;
        (uint Vdi, long Piece) key = (at.Address.Vdi, at.Address.Block / PieceBlocks);
        if (!_pieces.TryGetValue(key, out byte[]? piece))
        {
            piece = _order.Count == MaxPieces && _pieces.Remove(_order.Dequeue(), out byte[]? oldest)
                ? oldest
                : new byte[PieceBlocks * VdiFormat.BlockSize];
            container.Read(key.Piece * PieceBlocks, piece);
            _pieces[key] = piece;
            _order.Enqueue(key);
        }

        piece.AsSpan((int)VdiFormat.OffsetOf(at.Address.Block % PieceBlocks), VdiFormat.BlockSize).CopyTo(node);
        return Crc32C.Of(node) == at.Crc;
    }
}
