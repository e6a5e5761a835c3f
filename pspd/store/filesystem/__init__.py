"""Operations on files and folders of the local disk."""
